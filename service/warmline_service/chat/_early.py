"""What a process says between being given a message and the message being stored."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Protocol

from warmline_service.worker import (
    CliMessage,
    CliProcess,
    Exit,
    Sink,
    TranscriptMirror,
    entries_before,
)

# In bytes. Before it hears from the model a process says a few kB.
_MOST = 16 * 1024 * 1024


class Beginning(Sink, Protocol):
    """A turn whose message a process may have before it is stored."""

    @property
    def id(self) -> str:
        """The turn's id, which is that of its message."""
        ...

    @property
    def settled(self) -> asyncio.Future[bool]:
        """Done when it is known whether the turn is stored."""
        ...

    def begin(self, process: CliProcess) -> None:
        """Listen to the process from now on."""
        ...


class Early:
    """Keeps what a process says until its turn is known to be stored: nothing of it counts before.

    `close` ends that, and gives to `rest` what belongs to earlier turns. The process dies with a turn
    that was not stored: it knows its message.
    """

    def __init__(self, turn: Beginning, process: CliProcess, rest: Sink) -> None:
        self._turn = turn
        self._process = process
        self._rest = rest
        self._kept: list[CliMessage] = []
        self._size = 0
        self._listening = True
        process.attach(self)
        turn.settled.add_done_callback(self._settled)

    def on_messages(self, batch: Sequence[CliMessage]) -> None:
        """Keep it."""
        self._kept += batch
        self._size += sum(len(message.line) for message in batch)
        if self._size > _MOST:
            self._process.give_up("said too much before its turn was stored")

    def on_exit(self, exit: Exit) -> None:  # noqa: A002  # the sink's own word
        """It is told of when the turn is known to be stored."""

    def close(self) -> None:
        """Listen no more."""
        if not self._listening:
            return
        self._listening = False
        self._process.attach(None)
        for message in self._kept:
            if isinstance(message, TranscriptMirror):
                earlier, own = entries_before(message, self._turn.id)
                self._rest.on_messages([earlier])
                if own:
                    return

    def _settled(self, settled: asyncio.Future[bool]) -> None:
        if not self._listening or not settled.result():
            return
        if self._process.exited.done():
            # It has asked no model: as if it had not had the message, which another one is told.
            self.close()
            self._turn.on_exit(self._process.exited.result())
            return
        self._listening = False
        self._turn.begin(self._process)
        self._turn.on_messages(self._kept)
