"""The states of one process, the table of legal moves, and the only thing that makes a move."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from enum import StrEnum


class ProcessState(StrEnum):
    """Where a process is in its life; the same words as in metrics, logs and docs."""

    STARTING = "starting"
    SPARE = "spare"
    RESERVED = "reserved"
    BUSY = "busy"
    HOT = "hot"
    STOPPING = "stopping"
    GONE = "gone"


_END = frozenset({ProcessState.STOPPING, ProcessState.GONE})

LEGAL_MOVES: Mapping[ProcessState, frozenset[ProcessState]] = {
    ProcessState.STARTING: _END | {ProcessState.SPARE, ProcessState.RESERVED},
    ProcessState.SPARE: _END | {ProcessState.RESERVED},
    ProcessState.RESERVED: _END | {ProcessState.BUSY, ProcessState.HOT},
    ProcessState.BUSY: _END | {ProcessState.HOT},
    ProcessState.HOT: _END | {ProcessState.RESERVED},
    ProcessState.STOPPING: frozenset({ProcessState.GONE}),
    ProcessState.GONE: frozenset(),
}


class IllegalMove(Exception):  # noqa: N818  # named as a sentence reads: an illegal move was tried
    """A process was asked to go where it cannot go from where it is: a bug, never an event."""

    def __init__(self, origin: ProcessState, to: ProcessState) -> None:
        super().__init__(f"a {origin} process cannot become {to}")
        self.origin = origin
        self.to = to


class Life:
    """One process's state; `on_move(from, to)` is told after each move."""

    def __init__(self, on_move: Callable[[ProcessState, ProcessState], None] | None = None) -> None:
        self._state = ProcessState.STARTING
        self._on_move = on_move

    @property
    def state(self) -> ProcessState:
        """Where the process is now."""
        return self._state

    def move(self, to: ProcessState) -> None:
        """Go to `to`; raises IllegalMove, and stays, where the table does not allow it."""
        origin = self._state
        if to not in LEGAL_MOVES[origin]:
            raise IllegalMove(origin, to)
        self._state = to
        if self._on_move is not None:
            self._on_move(origin, to)

    def __repr__(self) -> str:
        return f"Life({self._state})"
