"""The service is killed at any moment: every accepted message has its one end, and sessions go on."""

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path

import fake_cli
import pytest
from parking import resumed, say
from running import data_directory, text_of, until
from serving import ends, journal, served
from warmline_client import Conversation, Turn, WarmlineError, connect

LOST = "CLI_CRASHED true"
NOT_BEGUN = "CLI_CRASHED false"


@pytest.fixture
async def data() -> AsyncIterator[Path]:
    """A data directory."""
    with data_directory() as directory:
        yield directory


@pytest.fixture
def cli(tmp_path: Path) -> Path:
    """The fake CLI."""
    return fake_cli.install(tmp_path / "fake")


async def until_text(turn: Turn) -> None:
    """Read until the turn has begun to answer."""
    async with asyncio.timeout(20):
        async for event in turn:
            if event.HasField("text_delta"):
                return


async def end_of(turn: Turn) -> str:
    """How a turn fails."""
    with pytest.raises(WarmlineError) as caught:
        await asyncio.wait_for(turn.completed(), 90)
    return f"{caught.value.reason} {caught.value.metadata.get('started', '')}".rstrip()


async def knows(chat: Conversation, *said: str) -> None:
    """The session's next process was told these messages before."""
    events = await say(chat, "!bound")
    resumed(events)
    assert json.loads(text_of(events))["history"] == [*said, "!bound"]


def slots(data: Path) -> set[str]:
    """The slots and sockets that there are."""
    return {path.name for path in data.glob("slots/*/")}


async def test_a_service_that_is_killed_in_a_turn(data: Path, cli: Path, store_url: str) -> None:
    """What ran, what waited and what is said in between: the client has it all by itself."""
    on = {"store__url": store_url} if store_url else {}
    async with served(data, cli, 0, on) as first, connect(first.address) as client:
        async with client.chat() as chat:
            await say(chat, "one")
            work = Path(json.loads(text_of(await say(chat, "!cwd"))))
            (work / "file").write_text("kept")
            running = await chat.send("!hang")
            await until_text(running)
            waiting = [await chat.send(text) for text in ("two", "three")]
            await until(lambda: all(turn.id for turn in waiting))
            before = slots(data)
            await first.killed()
            meanwhile = await chat.send("meanwhile")
            async with served(data, cli, first.port, on):
                assert await end_of(running) == LOST
                assert [await end_of(turn) for turn in waiting] == [NOT_BEGUN] * 2
                assert (await asyncio.wait_for(meanwhile.completed(), 90)).result
                assert not slots(data) & before
                work = Path(json.loads(text_of(await say(chat, "!cwd"))))
                assert (work / "file").read_text() == "kept"
                await knows_hot(chat, "one", "!cwd", "!hang", "meanwhile", "!cwd")
                found = ends(await journal(client, chat.session_id))
                assert found == {
                    "one": "done",
                    "!cwd": "done",
                    "!hang": LOST,
                    "two": NOT_BEGUN,
                    "three": NOT_BEGUN,
                    "meanwhile": "done",
                    "!bound": "done",
                }


async def test_a_service_that_is_killed_before_a_turn_begins(data: Path, cli: Path) -> None:
    """Accepted and waiting for a process: it may have begun for all that is known afterwards; what
    waits behind it has not. The session knows nothing of either."""
    one = {"pool__max_processes": 1, "pool__min_spares": 0, "pool__max_spares": 0}
    async with served(data, cli, 0, one) as first, connect(first.address) as client:
        async with client.chat() as busy, client.chat() as chat:
            await say(chat, "one")
            blocking = await busy.send("!hang")
            await until_text(blocking)
            turns = [await chat.send(text) for text in ("two", "three")]
            await until(lambda: all(turn.id for turn in turns))
            await first.killed()
            async with served(data, cli, first.port, one):
                assert [await end_of(turn) for turn in (*turns, blocking)] == [
                    LOST,
                    NOT_BEGUN,
                    LOST,
                ]
                await knows(chat, "one")
                found = ends(await journal(client, chat.session_id))
                assert found == {"one": "done", "two": LOST, "three": NOT_BEGUN, "!bound": "done"}


async def test_a_service_that_is_killed_between_turns(data: Path, cli: Path) -> None:
    """Nothing is ended that had ended, twice over; who asks again is told the same turn."""
    async with served(data, cli) as first, connect(first.address) as client:
        async with client.chat() as chat:
            turn = await chat.send("one", key="k")
            await asyncio.wait_for(turn.completed(), 20)
            await first.killed()
            async with served(data, cli, first.port):
                again = [event async for event in await chat.send("one", key="k")]
                assert text_of(again) == "echo: one"
                await knows(chat, "one")
                stored = await journal(client, chat.session_id)
                assert ends(stored) == {"one": "done", "!bound": "done"}
                assert [event.turn_queued.text for event in stored].count("one") == 1


async def test_a_service_that_drains(data: Path, cli: Path) -> None:
    """The client is told with its cursor, sees the turn's end, and goes on with the next service."""
    settings = {"drain_grace": 10}
    async with served(data, cli, 0, settings) as first, connect(first.address) as client:
        async with client.chat() as chat:
            turn = await chat.send("!deltas 40 20")
            await until_text(turn)
            await first.drained()
            told = [event for event in chat.notices if event.HasField("server_draining")]
            assert told[0].server_draining.seq
            waiting = await chat.send("two")
            async with served(data, cli, first.port):
                rest = [event async for event in turn]
                assert rest[-1].turn_completed.result == "x" * 320
                assert (await asyncio.wait_for(waiting.completed(), 90)).result
                await knows_hot(chat, "!deltas 40 20", "two")
                found = ends(await journal(client, chat.session_id))
                assert set(found.values()) == {"done"}


async def knows_hot(chat: Conversation, *said: str) -> None:
    """The session's process knows these messages."""
    events = await say(chat, "!bound")
    assert json.loads(text_of(events))["history"] == [*said, "!bound"]


async def test_a_turn_that_a_drain_cuts(data: Path, cli: Path) -> None:
    """It ends as DRAINING, once, and what it said is part of the past."""
    async with (
        served(data, cli, 0, {"drain_grace": 0.3}) as first,
        connect(first.address) as client,
    ):
        async with client.chat() as chat:
            turn = await chat.send("!deltas 10000 20")
            await until_text(turn)
            await first.drained()
            async with served(data, cli, first.port):
                assert await end_of(turn) == "DRAINING"
                await knows(chat, "!deltas 10000 20")
                stored = await journal(client, chat.session_id)
                assert ends(stored)["!deltas 10000 20"] == "DRAINING"
