"""Two services on one database: a session is at work in one of them, and outlives it in the other."""

import asyncio
import json
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

import fake_cli
import pytest
from parking import RESUMED, client_of, conversation_of, notices, say, start_of
from running import data_directory, faking, kinds, service_in, text_of, until
from serving import ends, journal, served
from warmline.v1 import events_pb2 as pb
from warmline_client import Client, Conversation, WarmlineError, connect


@pytest.fixture
async def roots() -> AsyncIterator[tuple[Path, Path]]:
    """Two data directories."""
    with data_directory() as one, data_directory() as two:
        yield one, two


# Seconds, for who waits until a lease ends: a busy machine renews it within two thirds of it.
_SHORT = 4.0


def on(url: str, directory: Path, lease_ttl: float = 15.0, **changes: Any) -> dict[str, Any]:
    """The settings of a service on a database, with the fake CLI."""
    store = {"url": url, "lease_ttl": lease_ttl, "blob_url": f"file://{directory}/blobs"}
    # Services on one database have one master key.
    vault = {"key_file": directory / "vault.key"}
    return {"store": store, "vault": vault, "cli": faking(directory)} | changes


async def knows(chat: Conversation, *said: str, lost: Sequence[str] = ()) -> None:
    """The session's next process was told these messages before; what else was lost is told."""
    events = await say(chat, "!bound")
    assert start_of(events).start == RESUMED
    assert notices(events) == list(lost)
    assert json.loads(text_of(events))["history"] == [*said, "!bound"]


async def opened(client: Client, session_id: str) -> Conversation:
    """A conversation that is not tried again."""
    chat = client.chat(session_id=session_id, reconnect_timeout=0)
    return await chat.__aenter__()


async def test_a_restart_on_postgres(tmp_path: Path, postgres_url: str) -> None:
    """The session goes on with its context, and its files."""
    settings = on(postgres_url, tmp_path)
    with data_directory() as data:
        async with service_in(data, **settings) as service, client_of(service) as client:
            async with client.chat() as chat:
                await say(chat, "one")
                session_id = chat.session_id
        async with service_in(data, **settings) as service, client_of(service) as client:
            async with client.chat(session_id=session_id) as chat:
                await knows(chat, "one")
            await journal(client, session_id)


async def test_a_session_is_at_work_in_one_service(
    tmp_path: Path, roots: tuple[Path, Path], postgres_url: str
) -> None:
    """SESSION_ELSEWHERE in the other, which can be asked what happens, and has it when it is given up."""
    settings = on(postgres_url, tmp_path, pool={"idle_ttl": 0.3})
    async with (
        service_in(roots[0], **settings) as one,
        service_in(roots[1], **settings) as two,
        client_of(one) as first,
        client_of(two) as second,
    ):
        async with first.chat() as chat:
            session_id = chat.session_id
            await say(chat, "!write mine")
            turn = await chat.send("!deltas 100 20")
            watching = asyncio.create_task(_until_the_end(second, session_id))
            async for event in turn:
                if event.HasField("text_delta"):
                    break
            with pytest.raises(WarmlineError, match="SESSION_ELSEWHERE"):
                await opened(second, session_id)
            await asyncio.wait_for(turn.completed(), 20)
            assert text_of(await asyncio.wait_for(watching, 20)).endswith("x" * 800)
        await until(lambda: conversation_of(one, session_id) is None)
        async with second.chat(session_id=session_id) as chat:
            await knows(chat, "!write mine", "!deltas 100 20")
            assert text_of(await say(chat, "!read")) == "mine"
        await journal(second, session_id)


async def test_a_key_is_asked_for_in_the_other_service(
    tmp_path: Path, roots: tuple[Path, Path], postgres_url: str
) -> None:
    """Its turn is told from there: while it runs, when it has ended, and when nobody has the session."""
    settings = on(postgres_url, tmp_path, pool={"idle_ttl": 0.3})
    async with (
        service_in(roots[0], **settings) as one,
        service_in(roots[1], **settings) as two,
        client_of(one) as first,
        client_of(two) as second,
    ):
        text = "!deltas 40 20"
        async with first.chat() as chat:
            turn = await chat.send(text, key="k")
            async for event in turn:
                if event.HasField("text_delta"):
                    break
            running = await _asked(second, text)
            assert conversation_of(two, chat.session_id) is None
            ended = await _asked(second, text, session_id=chat.session_id)
        await until(lambda: conversation_of(one, chat.session_id) is None)
        parked = await _asked(second, text)
        assert conversation_of(two, chat.session_id) is None
        for events in (running, ended, parked):
            assert kinds(events)[0] == "turn_attached"
            assert text_of(events) == "x" * 320
            assert {event.turn_id for event in events} == {turn.id}
            assert kinds(events).count("turn_completed") == 1
        assert ends(await journal(second, chat.session_id)) == {text: "done"}


async def _asked(client: Client, text: str, **more: Any) -> list[pb.Event]:
    async with asyncio.timeout(20):
        return [event async for event in client.ask(text, key="k", **more)]


async def _until_the_end(client: Client, session_id: str) -> list[pb.Event]:
    events = []
    async for event in client.watch(session_id):
        events.append(event)
        if event.turn_completed.result.startswith("x"):
            break
    return events


async def test_a_service_takes_over_from_one_that_is_gone(
    tmp_path: Path, roots: tuple[Path, Path], postgres_url: str
) -> None:
    """Killed, it holds its sessions until its lease ends; then the other ends its turn and goes on."""
    cli = fake_cli.install(tmp_path / "killed")
    url: dict[str, Any] = {"store__url": postgres_url, "store__lease_ttl": _SHORT}
    url["vault__key_file"] = tmp_path / "vault.key"
    async with (
        served(roots[0], cli, 0, url) as one,
        service_in(roots[1], **on(postgres_url, tmp_path, _SHORT)) as two,
        connect(one.address) as first,
        client_of(two) as second,
    ):
        async with first.chat(reconnect_timeout=0) as chat:
            await say(chat, "one")
            turn = await chat.send("!hang")
            async for event in turn:
                if event.HasField("text_delta"):
                    break
            await one.killed()
        with pytest.raises(WarmlineError, match="SESSION_ELSEWHERE"):
            await opened(second, chat.session_id)
        # Nobody asks for it: the other finds the turn by itself.
        failed = await asyncio.wait_for(_failure(second, chat.session_id), 90)
        assert failed.reason == "CLI_CRASHED"
        assert failed.metadata["started"] == "true"
        async with second.chat(session_id=chat.session_id) as again:
            await knows(again, "one", "!hang", lost=["workspace_lost"])
        found = ends(await journal(second, chat.session_id))
        assert found == {"one": "done", "!hang": "CLI_CRASHED true", "!bound": "done"}


async def _failure(client: Client, session_id: str) -> WarmlineError:
    async for event in client.watch(session_id):
        if event.HasField("turn_failed"):
            return WarmlineError(event.turn_failed.status)
    raise AssertionError("the stream ended without a failure")
