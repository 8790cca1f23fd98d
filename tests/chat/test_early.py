"""What a process says before its turn is stored waits; what it says of earlier turns is not lost with it."""

import asyncio
import json
from collections.abc import Sequence

import pytest
from msgspec import Raw
from warmline_service.chat._early import Early
from warmline_service.worker import CliMessage, CliProcess, Exit, Sink, TranscriptMirror, Unknown


class Process:
    """A process as far as it is listened to."""

    def __init__(self) -> None:
        self.sink: Sink | None = None
        self.cause = ""
        self.exited: asyncio.Future[Exit] = asyncio.get_running_loop().create_future()

    def attach(self, sink: Sink | None) -> None:
        self.sink = sink

    def give_up(self, cause: str) -> None:
        self.cause = cause


class Heard:
    """A turn, or who listens between turns: what it heard, in order."""

    id = "mine"

    def __init__(self) -> None:
        self.settled: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        self.told: list[object] = []

    def begin(self, process: CliProcess) -> None:
        self.told.append("begin")
        process.attach(self)

    def on_messages(self, batch: Sequence[CliMessage]) -> None:
        self.told += batch

    def on_exit(self, exit: Exit) -> None:  # noqa: A002  # the sink's own word
        self.told.append(exit)


def said(text: str) -> Unknown:
    return Unknown("said", text.encode())


def mirror(*uuids: str) -> TranscriptMirror:
    entries = [Raw(json.dumps({"type": "user", "uuid": each}).encode()) for each in uuids]
    return TranscriptMirror(b"", "", entries)


def early() -> tuple[Early, Process, Heard, Heard]:
    process, turn, rest = Process(), Heard(), Heard()
    return Early(turn, process, rest), process, turn, rest  # type: ignore[arg-type]  # all it uses


async def settle(turn: Heard, *, stored: bool) -> None:
    turn.settled.set_result(stored)
    await asyncio.sleep(0)


async def test_a_stored_turn_hears_all_of_it_in_order() -> None:
    """And what comes later by itself."""
    _, process, turn, rest = early()
    assert process.sink is not None
    process.sink.on_messages([said("a")])
    process.sink.on_messages([said("b"), said("c")])
    assert turn.told == []
    await settle(turn, stored=True)
    assert turn.told == ["begin", said("a"), said("b"), said("c")]
    assert process.sink is turn
    assert rest.told == []


async def test_a_process_that_ends_first_has_said_nothing() -> None:
    """It has asked no model, and another one is told the message: it must not be in the past then."""
    _, process, turn, rest = early()
    assert process.sink is not None
    process.sink.on_messages([mirror("before", "mine"), said("a")])
    ended = Exit(1, None, "", "")
    process.exited.set_result(ended)
    process.sink.on_exit(ended)
    assert turn.told == []
    await settle(turn, stored=True)
    assert turn.told == [ended]
    assert rest.told == [mirror("before")]


async def test_of_a_turn_that_is_not_stored_only_what_is_earlier_is_heard() -> None:
    """Entries up to its message belong to the turns before; what is said afterwards, to nobody."""
    listening, process, turn, rest = early()
    assert process.sink is not None
    process.sink.on_messages([mirror("before"), said("a"), mirror("also", "mine", "after")])
    process.sink.on_messages([mirror("later")])
    await settle(turn, stored=False)
    listening.close()
    assert turn.told == []
    assert rest.told == [mirror("before"), mirror("also")]
    assert process.sink is None


@pytest.mark.parametrize("stored", [True, False])
async def test_what_is_closed_hears_nothing_of_how_it_goes(*, stored: bool) -> None:
    """The turn has ended without it: it is over in this process."""
    listening, process, turn, _ = early()
    listening.close()
    await settle(turn, stored=stored)
    assert turn.told == []
    assert process.sink is None


async def test_closing_what_has_been_heard_changes_nothing() -> None:
    """The turn listens itself by then."""
    listening, process, turn, _ = early()
    await settle(turn, stored=True)
    listening.close()
    assert process.sink is turn


async def test_a_flood_is_not_kept() -> None:
    """No process says much before it hears from the model."""
    _, process, _, _ = early()
    assert process.sink is not None
    process.sink.on_messages([said("x" * 1024)])
    assert process.cause == ""
    process.sink.on_messages([said("x" * (16 * 1024 * 1024))])
    assert process.cause
