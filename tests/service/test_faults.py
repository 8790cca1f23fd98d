"""What goes wrong has one typed end, leaves the session usable, and leaks nothing."""

import asyncio
import json
import time
from pathlib import Path
from typing import Any

import fake_cli
import psutil
import pytest
from processes import descendants
from running import (
    events_of,
    kinds,
    running_client,
    running_service,
    small_settings,
    text_of,
    until,
)
from stores import forbid_writing, tell_log
from warmline.v1 import events_pb2 as pb
from warmline_client import Conversation, WarmlineError, connect
from warmline_service.errors import Reason
from warmline_service.errors import WarmlineError as ServiceError
from warmline_service.server import Service


def faking(directory: Path, scenario: dict[str, Any] | None = None, **cli: Any) -> dict[str, Any]:
    """Settings of a service whose CLI is the fake one."""
    binary = fake_cli.install(directory / "fake", **(scenario or {}))
    return {"path": binary, "max_retries": 0, "interrupt_timeout": 1, "stop_timeout": 1} | cli


async def failure(conversation: Conversation, text: str) -> tuple[WarmlineError, pb.TurnFailed]:
    """Say something whose turn fails; its one end."""
    events = await events_of(conversation, text)
    assert kinds(events).count("turn_failed") == 1
    assert "turn_completed" not in kinds(events)
    return WarmlineError(events[-1].turn_failed.status), events[-1].turn_failed


@pytest.mark.parametrize("text", ["!die 3", "!kill", "!garbage", "!half"])
async def test_a_process_that_breaks_mid_turn_is_cli_crashed(tmp_path: Path, text: str) -> None:
    """The turn fails by name, and the session goes on with another process, which knows what was said."""
    async with running_client(cli=faking(tmp_path)) as client, client.chat() as chat:
        error, failed = await failure(chat, text)
        assert (error.reason, failed.context_lost) == ("CLI_CRASHED", False)
        after = await events_of(chat, "still there?")
        told = json.loads(text_of(await events_of(chat, "!bound")))
    assert text_of(after) == "echo: still there?"
    assert after[-1].turn_completed.latency.start == pb.START_KIND_RESUMED
    assert after[-1].epoch == 2
    assert told["history"][0] == text


async def test_a_turn_whose_model_cannot_be_reached_fails(tmp_path: Path) -> None:
    """UPSTREAM_UNAVAILABLE, not an answer of nobody; the session stays with its process."""
    key = tmp_path / "key"
    key.write_text("no-key", encoding="utf-8")
    provider = {"kind": "anthropic", "base_url": "http://127.0.0.1:9", "api_key_file": key}
    cli = faking(tmp_path)
    async with running_client(cli=cli, provider=provider) as client, client.chat() as chat:
        error, failed = await failure(chat, "anybody there?")
        assert (error.reason, failed.context_lost) == ("UPSTREAM_UNAVAILABLE", False)
        told = await events_of(chat, "!bound")
    assert told[-1].turn_completed.latency.start == pb.START_KIND_HOT


async def test_a_crash_carries_the_last_words(tmp_path: Path) -> None:
    """What the CLI wrote to stderr is in the error, and no more than its end."""
    async with running_client(cli=faking(tmp_path)) as client, client.chat() as chat:
        await events_of(chat, "!stderr 100000")
        error, _ = await failure(chat, "!die 7")
    assert error.metadata["exitCode"] == "7"
    assert 0 < len(error.metadata["stderr"]) <= 1024


async def test_silence_is_a_stall_and_an_interrupt_ends_it(tmp_path: Path) -> None:
    """TURN_STALLED after the session's bound; a process that heeds the interrupt keeps the context."""
    limits = {"stall_timeout": 0.5}
    async with running_client(cli=faking(tmp_path), limits=limits) as client, client.chat() as chat:
        error, failed = await failure(chat, "!hang")
        assert (error.reason, failed.context_lost) == ("TURN_STALLED", False)
        after = await events_of(chat, "go on")
    assert after[-1].turn_completed.latency.start == pb.START_KIND_HOT


async def test_a_deaf_process_is_replaced(tmp_path: Path) -> None:
    """One that neither goes on nor heeds the interrupt loses its place, not the session."""
    limits = {"stall_timeout": 0.5}
    async with running_client(cli=faking(tmp_path), limits=limits) as client, client.chat() as chat:
        error, failed = await failure(chat, "!deaf")
        assert (error.reason, failed.context_lost) == ("TURN_STALLED", False)
        assert text_of(await events_of(chat, "go on")) == "echo: go on"


async def test_an_interrupt_that_is_not_heeded_is_forced(tmp_path: Path) -> None:
    """FORCED says that the process had to be replaced."""
    async with running_client(cli=faking(tmp_path)) as client, client.chat() as chat:
        turn = await chat.send("!deaf")
        async for event in turn:
            if event.HasField("text_delta"):
                result = await chat.interrupt()
        assert result.outcome == pb.InterruptResult.OUTCOME_FORCED
        assert text_of(await events_of(chat, "go on")) == "echo: go on"


async def test_a_turn_has_a_longest_time(tmp_path: Path) -> None:
    """TURN_TIMEOUT, however busy the turn is."""
    limits = {"turn_timeout": 0.6}
    async with running_client(cli=faking(tmp_path), limits=limits) as client, client.chat() as chat:
        error, _ = await failure(chat, "!deltas 1000 20")
    assert error.reason == "TURN_TIMEOUT"


@pytest.mark.real_cli
@pytest.mark.parametrize(
    ("script", "reason"),
    [
        ("::error 401", "CREDENTIAL_REJECTED"),
        ("::error 403", "CREDENTIAL_REJECTED"),
        ("::error 429 retry-after 7", "RATE_LIMITED"),
        ("::error 500", "UPSTREAM_UNAVAILABLE"),
        ("::error 529", "UPSTREAM_OVERLOADED"),
        ("::error 400", "FIELD_INVALID"),
    ],
)
async def test_what_the_provider_refuses_is_named(script: str, reason: str) -> None:
    """Each upstream error has its own reason, the process stays, the session goes on."""
    async with running_client() as client, client.chat() as chat:
        error, failed = await failure(chat, script)
        assert error.reason == reason
        assert not failed.context_lost
        if "retry-after" in script:
            assert error.retry_after == 7
        assert text_of(await events_of(chat, "::say fine")) == "fine"


@pytest.mark.real_cli
async def test_a_model_that_goes_silent_is_a_stall() -> None:
    """A provider that answers and then hangs ends in TURN_STALLED, without losing the process."""
    async with running_client(limits={"stall_timeout": 1}) as client, client.chat() as chat:
        error, _ = await failure(chat, "::text 3\n::hang")
        assert error.reason == "TURN_STALLED"
        assert text_of(await events_of(chat, "::say fine")) == "fine"


@pytest.mark.real_cli
async def test_a_killed_process_is_noticed_between_turns() -> None:
    """A hot process that dies while idle costs the session nothing: another one is told all of it."""
    async with running_client() as client, client.chat() as chat:
        await events_of(chat, "::say hi")
        for process, shown in descendants("name"):
            if shown["name"] in ("claude", "unshare"):
                process.kill()
        after = await events_of(chat, "back")
    assert text_of(after) == "You said: back (message 2 of this conversation)"
    assert after[-1].turn_completed.latency.start == pb.START_KIND_RESUMED


async def test_a_flood_of_unknown_lines_breaks_no_stream(tmp_path: Path) -> None:
    """A large line passes whole."""
    async with running_client(cli=faking(tmp_path)) as client, client.chat() as chat:
        events = await events_of(chat, "!big 20000000")
    assert len(events[-1].turn_completed.result) >= 20_000_000 or len(text_of(events)) >= 20_000_000


async def refused_start(directory: Path, **changes: Any) -> ServiceError:
    """Start a service that cannot start; nothing may be left of it."""
    service = Service(small_settings(directory / "data", **changes))
    with pytest.raises(ServiceError) as caught:
        await service.start()
    assert list(directory.glob("data/slots/*/")) == []
    return caught.value


@pytest.mark.parametrize("path", ["/nonexistent/claude", "/etc/hostname", "/bin/true"])
async def test_a_wrong_cli_path_stops_the_service_by_name(tmp_path: Path, path: str) -> None:
    """CLI_NOT_FOUND says which path and what is wrong with it."""
    error = await refused_start(tmp_path, cli={"path": path})
    assert error.reason is Reason.CLI_NOT_FOUND
    assert path in error.message


async def test_a_cli_that_exits_at_start_stops_the_service(tmp_path: Path) -> None:
    """CLI_CRASHED, with what it wrote."""
    scenario = {"exit_at_start": 9, "stderr_at_start": "no licence"}
    error = await refused_start(tmp_path, cli=faking(tmp_path, scenario))
    assert error.reason is Reason.CLI_CRASHED
    assert "no licence" in error.metadata["stderr"]


async def test_a_cli_that_stops_starting_fails_turns_and_recovers(tmp_path: Path) -> None:
    """While no process starts, a turn is CLI_CRASHED within its deadline; afterwards all is well."""
    cli = faking(tmp_path)
    pool = {"min_spares": 0, "max_spares": 0, "start_backoff": 0.05}
    async with running_client(cli=cli, pool=pool) as client:
        scenario = tmp_path / "fake" / "scenario.json"
        scenario.write_text('{"exit_at_start": 1}')
        async with client.chat() as chat:
            error, _ = await failure(chat, "hi")
            assert error.reason == "CLI_CRASHED"
        scenario.write_text("{}")
        async with client.chat() as chat, asyncio.timeout(90):
            while kinds(await events_of(chat, "hi"))[-1] != "turn_completed":
                await asyncio.sleep(0.1)


async def test_no_place_for_a_slot_is_storage_unavailable(tmp_path: Path) -> None:
    """A data directory that takes no more slots fails the turn by name, and only that."""
    pool = {"min_spares": 0, "max_spares": 0, "start_backoff": 0.05}
    async with running_service(cli=faking(tmp_path), pool=pool) as service:
        slots = service.settings.data_dir / "slots"
        moved = slots.rename(slots.with_name("gone"))
        async with connect(f"127.0.0.1:{service.port}") as client, client.chat() as chat:
            error, _ = await failure(chat, "hi")
            assert error.reason == "STORAGE_UNAVAILABLE"
            moved.rename(slots)
            async with asyncio.timeout(90):
                while kinds(await events_of(chat, "hi"))[-1] != "turn_completed":
                    await asyncio.sleep(0.1)


async def test_an_outage_of_the_database_costs_no_session(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of SQLite, longer than a lease: nobody else can write either; what ran is told afterwards."""
    store = {"lease_ttl": 0.3}
    async with running_service(cli=faking(tmp_path), store=store) as service:
        async with connect(f"127.0.0.1:{service.port}") as client, client.chat() as chat:
            turn = await chat.send("!deltas 20 20")
            await anext(aiter(turn))
            assert service._store is not None
            renew, in_vain = service._store.renew, asyncio.Semaphore(0)

            async def counted(ttl: float) -> None:
                try:
                    await renew(ttl)
                except ServiceError:
                    in_vain.release()
                    raise

            monkeypatch.setattr(service._store, "renew", counted)
            await asyncio.to_thread(forbid_writing, service._store, forbid=True)
            async with asyncio.timeout(20):
                for _ in range(6):  # Twice the lease's time.
                    await in_vain.acquire()
            await asyncio.to_thread(forbid_writing, service._store, forbid=False)
            assert (await asyncio.wait_for(turn.completed(), 20)).result == "x" * 160
            assert not chat.broken
            assert kinds(await events_of(chat, "hi"))[-1] == "turn_completed"


async def test_a_cursor_is_of_what_is_stored(tmp_path: Path) -> None:
    """What waits for a store that is down can still be lost: who comes back must not be ahead of it."""
    async with running_service(cli=faking(tmp_path)) as service:
        store, conversations = service._store, service._conversations
        assert store is not None
        assert conversations is not None
        async with connect(f"127.0.0.1:{service.port}") as client, client.chat() as first:
            turn = await first.send("!deltas 200 10")
            async for event in turn:
                if event.HasField("text_delta"):
                    break
            await asyncio.to_thread(forbid_writing, store, forbid=True)
            await asyncio.to_thread(tell_log, store, usable=False)
            session = conversations._live[first.session_id].session
            await until(lambda: session.seq > session.stored + 20)
            async with client.chat(session_id=session.id, takeover=True) as second:
                _, last = await store.position(session.id)
                assert second.cursor.seq == last < session.seq
                assert (await client.session(session.id)).last_seq == last
            await asyncio.to_thread(tell_log, store, usable=True)
            await asyncio.to_thread(forbid_writing, store, forbid=False)
            assert (await asyncio.wait_for(turn.completed(), 20)).result == "x" * 1600


async def test_a_full_pool_says_when_to_come_back(tmp_path: Path) -> None:
    """POOL_EXHAUSTED by the deadline, with RetryInfo; who runs is not disturbed."""
    # Long enough for the first one's own process to start.
    pool = {"max_processes": 1, "min_spares": 0, "acquire_timeout": 3}
    async with running_client(cli=faking(tmp_path), pool=pool) as client:
        async with client.chat() as first, client.chat() as second:
            running = await first.send("!deltas 200 20")
            await anext(aiter(running))
            async for event in running:
                if event.HasField("text_delta"):
                    break
            error, _ = await failure(second, "hi")
            assert error.reason == "POOL_EXHAUSTED"
            assert error.retry_after
            assert (await running.completed()).result


async def test_an_orphan_of_a_tool_dies_with_the_process(tmp_path: Path) -> None:
    """What left its group and its parent is gone when the service is."""
    async with running_client(cli=faking(tmp_path)) as client, client.chat() as chat:
        answer = text_of(await events_of(chat, "!orphan"))
        assert answer
    started = time.monotonic()
    assert not [p for p in psutil.process_iter(["cmdline"]) if str(tmp_path) in str(p.info)]
    assert time.monotonic() - started < 5
