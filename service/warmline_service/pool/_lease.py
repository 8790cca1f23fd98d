"""What a borrower holds: the right to one process, which dies on release."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, TypeVar

from warmline_service.errors import Reason, WarmlineError
from warmline_service.pool._books import Member
from warmline_service.pool._process import PooledProcess
from warmline_service.pool._want import LeaseExpired, Start
from warmline_service.worker import ProcessState

P = TypeVar("P", bound=PooledProcess)


@dataclass(frozen=True)
class LeaseOps:
    """What a lease does to the pool; all of it at once and without waiting."""

    bound: Callable[[Member], None]
    begin_turn: Callable[[Member], None]
    release: Callable[[Member, bool], None]


class Lease(Generic[P]):
    """A process for one session until `release`. Any use after that raises LeaseExpired.

    `start` says how the session came to it, `misses` which spawn-time inputs kept it from a better
    start, `queue_seconds` how long it waited, `spawn_seconds` how long the process took to start.
    """

    def __init__(
        self,
        ops: LeaseOps,
        member: Member,
        process: P,
        *,
        start: Start,
        misses: tuple[str, ...],
        queue_seconds: float,
        spawn_seconds: float,
    ) -> None:
        self.start = start
        self.misses = misses
        self.queue_seconds = queue_seconds
        self.spawn_seconds = spawn_seconds
        self._ops: LeaseOps | None = ops
        self._member = member
        self._process = process

    @property
    def process(self) -> P:
        """The process that was lent."""
        self._live()
        return self._process

    @property
    def bound(self) -> bool:
        """Whether the process already has the session's inputs."""
        self._live()
        return self._member.bound

    def mark_bound(self) -> None:
        """The session's inputs are in: from now on the process is worth keeping."""
        self._live().bound(self._member)

    def begin_turn(self) -> None:
        """RESERVED to BUSY. Raises CLI_CRASHED when the process has ended meanwhile."""
        ops = self._live()
        if self._member.state in (ProcessState.STOPPING, ProcessState.GONE):
            raise WarmlineError(Reason.CLI_CRASHED, "The CLI process ended before the turn.")
        ops.begin_turn(self._member)

    def release(self, *, poisoned: bool = False) -> None:
        """Give the process back: kept for its session, or stopped if `poisoned` or unfit."""
        ops = self._live()
        self._ops = None
        ops.release(self._member, poisoned)

    def _live(self) -> LeaseOps:
        if self._ops is None:
            raise LeaseExpired("the lease was already released")
        return self._ops

    def __repr__(self) -> str:
        state = self._member.state if self._ops is not None else "released"
        return f"<Lease {self._process.id} {self.start} {state}>"
