"""The books: each process stands in exactly one state, and each state is a list."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field

from warmline_service.worker import Life, ProcessState, SpawnKey

IDLE = (ProcessState.HOT, ProcessState.SPARE)
HELD = (ProcessState.RESERVED, ProcessState.BUSY, ProcessState.HOT)


@dataclass(eq=False)
class Member:
    """One process as the pool counts it. Times are loop time in seconds.

    `bytes` is what it is counted as: an estimate until measured. `tenant` is set from the moment it
    may serve one tenant only, `session` from its first grant, for life. `bound` says that the
    session's inputs are in, so that it can be parked. `since` is when it came into its state.
    """

    number: int
    key: SpawnKey
    generation: int
    bytes: int
    started_at: float
    on_demand: bool
    tenant: str | None
    life: Life = field(default_factory=Life)
    session: str | None = None
    bound: bool = False
    expires_at: float = math.inf
    since: float = 0.0
    granted_at: float = 0.0
    pinged_at: float = -math.inf
    pinging: bool = False
    measured_at: float = -math.inf

    @property
    def state(self) -> ProcessState:
        """Where its life stands."""
        return self.life.state


class Books:
    """All processes that are not gone, filed by state, and the mover from state to state."""

    def __init__(self) -> None:
        # In the order of arrival in the state: the first HOT is the least recently used.
        self._files: dict[ProcessState, dict[int, Member]] = {state: {} for state in ProcessState}
        self._sessions: dict[str, Member] = {}
        self.committed = 0

    def add(self, member: Member) -> None:
        """Enter a new process."""
        self._files[member.state][member.number] = member
        self.committed += member.bytes

    def move(self, member: Member, to: ProcessState, now: float) -> None:
        """Move a process on. Raises IllegalMove where the table has no such move."""
        before = member.state
        member.life.move(to)
        del self._files[before][member.number]
        member.since = now
        if to in HELD and member.session is not None:
            self._sessions[member.session] = member
        elif member.session is not None and self._sessions.get(member.session) is member:
            del self._sessions[member.session]
        if to is ProcessState.GONE:
            self.committed -= member.bytes
        else:
            self._files[to][member.number] = member

    def measured(self, member: Member, size: int) -> None:
        """Count a process as `size` bytes from now on."""
        if member.state is not ProcessState.GONE:
            self.committed += size - member.bytes
            member.bytes = size

    def of_session(self, session_id: str) -> Member | None:
        """The process that a session has, if it is not on its way out."""
        return self._sessions.get(session_id)

    def all_in(self, *states: ProcessState) -> tuple[Member, ...]:
        """The processes in these states, state by state, longest there first."""
        return tuple(member for state in states for member in self._files[state].values())

    def count(self, state: ProcessState) -> int:
        """How many are in a state."""
        return len(self._files[state])

    def __len__(self) -> int:
        return sum(map(len, self._files.values()))

    def __iter__(self) -> Iterator[Member]:
        return iter(self.all_in(*ProcessState))
