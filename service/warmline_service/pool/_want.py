"""What is asked of the pool, and what may be wrong with how it is asked."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from warmline_service.worker import SpawnKey


class Start(StrEnum):
    """How a session came to its process: its own, a spare, or one spawned for it."""

    HOT = "hot"
    WARM = "warm"
    COLD = "cold"


@dataclass(frozen=True)
class Share:
    """The most of the pool that a tenant may have: processes of its sessions, and callers that wait."""

    processes: int | None = None
    waiting: int | None = None


@dataclass(frozen=True)
class Want:
    """One session's need of a process.

    `keys` are the kinds of process that will do, best first; the last is the one that is spawned
    when there is none, so it must be possible to spawn. `share` is the tenant's. `group` are those
    with whom the tenant has one turn among all who wait; by himself where it is empty.
    """

    tenant: str
    session_id: str
    keys: tuple[SpawnKey, ...]
    share: Share = Share()
    group: str = ""

    def __post_init__(self) -> None:
        if not self.keys:
            raise ValueError("a want names at least one key")

    @property
    def line(self) -> str:
        """Where it waits."""
        return self.group or self.tenant

    @property
    def cold_key(self) -> SpawnKey:
        """What is spawned when nothing is ready."""
        return self.keys[-1]


@dataclass(eq=False)
class Waiter:
    """One want in time: asked at `since`, in vain from `deadline` on (loop time, seconds)."""

    want: Want
    since: float
    deadline: float


class SessionHasLease(RuntimeError):  # noqa: N818 - reads as the rule that was broken
    """A session asked for a second process while it has one in use or is waiting for one."""

    def __init__(self, session_id: str) -> None:
        super().__init__(f"session {session_id} already has a lease or waits for one")


class LeaseExpired(RuntimeError):  # noqa: N818 - reads as the rule that was broken
    """A lease was used after its release."""
