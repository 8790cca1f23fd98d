"""A conversation goes on with all that was said, whatever happens while it is given to a process."""

import asyncio
import json
from dataclasses import replace
from pathlib import Path

import fake_cli
import pytest
from parking import (
    client_of,
    conversation_of,
    is_resumed,
    kill_cli,
    notices,
    parked,
    resumed,
    row_of,
    say,
    start_of,
    work_of,
)
from running import faking, running_service, text_of, until
from warmline.v1 import events_pb2 as pb
from warmline_client import Conversation
from warmline_service.pool import Lease, Want
from warmline_service.server import Service
from warmline_service.worker import Capabilities, CliProcess, ProcessState, Site, probe

NO_SPARES = {"min_spares": 0, "max_spares": 0}


@pytest.fixture(params=["injected", "resumed"])
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """How a process is given the past: the CLI takes it in while it runs, or cannot."""
    if request.param == "resumed":
        monkeypatch.setattr("warmline_service.server.probe", _without_injection)
    return str(request.param)


async def _without_injection(site: Site) -> Capabilities:
    return replace(await probe(site), injection=False)


async def knows(chat: Conversation, *said: str) -> list[pb.Event]:
    """The process of the session's next turn was told these messages before."""
    events = await say(chat, "!bound")
    bound = json.loads(text_of(events))
    assert [each for each in bound["history"] if each != "!bound"] == list(said)
    return events


async def _gone(service: Service, session_id: str) -> None:
    kill_cli(service, session_id)
    await parked(service, session_id)


async def test_a_process_that_dies_as_it_is_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, way: str
) -> None:
    """The session believed to be hot: the past is looked up after all, in either way."""
    async with running_service(cli=faking(tmp_path)) as service:
        async with client_of(service) as client, client.chat() as chat:
            await say(chat, "one")
            acquire = service.pool.acquire

            async def too_late(want: Want, deadline: float) -> Lease[CliProcess]:
                monkeypatch.setattr(service.pool, "acquire", acquire)
                await _gone(service, chat.session_id)
                return await acquire(want, deadline)

            monkeypatch.setattr(service.pool, "acquire", too_late)
            resumed(await knows(chat, "one"))
            assert is_resumed(await work_of(service, chat.session_id)) == (way == "resumed")


async def test_a_process_that_dies_as_it_is_given_the_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing waits for files that nobody saves: another process has them at once, and all of them."""
    async with running_service(cli=faking(tmp_path)) as service:
        async with client_of(service) as client, client.chat() as chat:
            await say(chat, "!write kept")
            await _gone(service, chat.session_id)
            store = service._store
            assert store is not None
            place = store.place_workspace

            async def too_late(session_id: str, slot_id: str) -> None:
                monkeypatch.setattr(store, "place_workspace", place)
                await place(session_id, slot_id)
                slot = (await work_of(service, session_id)).parent
                kill_cli(service, session_id)
                await until(lambda: not slot.exists())

            monkeypatch.setattr(store, "place_workspace", too_late)
            async with asyncio.timeout(20):
                events = await say(chat, "!read")
            resumed(events)
            assert text_of(events) == "kept"
            assert notices(events) == []


@pytest.mark.parametrize("scenario", ["die_when_told", "untaken"])
async def test_a_history_that_is_not_taken_is_resumed(tmp_path: Path, scenario: str) -> None:
    """The process dies of it, or makes a turn of it: another one starts with it."""
    async with running_service(cli=faking(tmp_path), pool=NO_SPARES) as service:
        async with client_of(service) as client, client.chat() as chat:
            await say(chat, "one")
            fake_cli.install(tmp_path / "fake", **{scenario: True})
            await _gone(service, chat.session_id)
            resumed(await knows(chat, "one"))
            assert is_resumed(await work_of(service, chat.session_id))


async def test_a_past_that_no_process_takes_is_given_up_once(tmp_path: Path) -> None:
    """CONTEXT_LOST, and from then on the session is kept as ever."""
    async with running_service(cli=faking(tmp_path), pool=NO_SPARES) as service:
        async with client_of(service) as client, client.chat() as chat:
            await say(chat, "one")
            fake_cli.install(tmp_path / "fake", die_when_told=True, no_resume=True)
            await _gone(service, chat.session_id)
            events = await say(chat, "two")
            assert text_of(events) == "echo: two"
            assert notices(events) == ["context_lost"]
            assert start_of(events).start == pb.START_KIND_COLD
            fake_cli.install(tmp_path / "fake")
            await _gone(service, chat.session_id)
            resumed(await knows(chat, "two"))


async def test_a_start_that_fails_for_another_reason_loses_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A signal says nothing of the past: the turn fails, and the next one knows all that was said."""
    monkeypatch.setattr("warmline_service.server.probe", _without_injection)
    async with running_service(cli=faking(tmp_path), pool=NO_SPARES) as service:
        async with client_of(service) as client, client.chat() as chat:
            await say(chat, "one")
            fake_cli.install(tmp_path / "fake", exit_at_start=137)
            await _gone(service, chat.session_id)
            events = await say(chat, "two")
            assert events[-1].HasField("turn_failed")
            fake_cli.install(tmp_path / "fake")
            resumed(await knows(chat, "one"))


async def test_a_message_that_comes_while_its_session_is_parked(tmp_path: Path) -> None:
    """It waits for the files of the process that goes, and goes on with them in another."""
    cli = faking(tmp_path)
    fake_cli.install(tmp_path / "fake", ignore_eof=True)
    async with running_service(cli=cli, pool={"idle_ttl": 0.3}) as service:
        async with client_of(service) as client, client.chat() as chat:
            await say(chat, "!write kept")
            work = Path(json.loads(text_of(await say(chat, "!cwd"))))
            await until(lambda: service.pool.stats().processes[ProcessState.HOT] == 0)
            assert work.exists()
            events = await say(chat, "!read")
            resumed(events)
            assert text_of(events) == "kept"
            assert not work.exists()


async def test_sessions_that_share_one_place_take_turns(tmp_path: Path, way: str) -> None:
    """Each takes the other's process away, and neither forgets anything."""
    del way
    pool = NO_SPARES | {"max_processes": 1}
    async with running_service(cli=faking(tmp_path), pool=pool) as service:
        async with client_of(service) as client, client.chat() as one, client.chat() as two:
            for chat, name in ((one, "one"), (two, "two")):
                await say(chat, name)
            for _ in range(2):
                resumed(await knows(one, "one"))
                resumed(await knows(two, "two"))


async def test_a_long_conversation_is_resumed(tmp_path: Path) -> None:
    """More than 40 messages are read from a file rather than told one by one."""
    async with running_service(cli=faking(tmp_path)) as service:
        async with client_of(service) as client, client.chat() as chat:
            said = [str(number) for number in range(41)]
            for text in said:
                await say(chat, text)
            await _gone(service, chat.session_id)
            resumed(await knows(chat, *said))
            assert is_resumed(await work_of(service, chat.session_id))


async def test_a_session_that_nobody_needs_is_given_up(tmp_path: Path) -> None:
    """Without a stream it is kept for its process only, and another service may have it then."""
    async with running_service(cli=faking(tmp_path), pool={"idle_ttl": 0.3}) as service:
        async with client_of(service) as client:
            async with client.chat() as chat:
                await say(chat, "one")
                assert conversation_of(service, chat.session_id)
            await until(lambda: conversation_of(service, chat.session_id) is None)
            assert not (await row_of(service, chat.session_id)).slot_id
