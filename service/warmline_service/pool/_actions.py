"""What the pool's decisions ask to have done."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from warmline_service.errors import WarmlineError
from warmline_service.pool._books import Member
from warmline_service.pool._want import Start, Waiter


class Why(StrEnum):
    """Why the pool stops a process: the words of logs and metrics."""

    EVICTED = "evicted"
    PRESSURE = "pressure"
    IDLE = "idle"
    SURPLUS = "surplus"
    UNWANTED = "unwanted"
    AGED = "aged"
    OVERSIZE = "oversize"
    RETIRED = "retired"
    UNHEALTHY = "unhealthy"
    POISONED = "poisoned"
    UNBOUND = "unbound"
    FORGOTTEN = "forgotten"
    DRAINED = "drained"
    STUCK = "stuck"


@dataclass(frozen=True)
class Grant:
    """Give a process to a waiter; `misses` names the inputs that kept it from a better one."""

    waiter: Waiter
    member: Member
    start: Start
    misses: tuple[str, ...]


@dataclass(frozen=True)
class Refuse:
    """Tell a waiter that it gets none."""

    waiter: Waiter
    error: WarmlineError


@dataclass(frozen=True)
class Launch:
    """Start a process with the member's key."""

    member: Member


@dataclass(frozen=True)
class Stop:
    """End a process, or the start that would make it."""

    member: Member
    why: Why


@dataclass(frozen=True)
class Ping:
    """Find out whether an idle process still answers."""

    member: Member


@dataclass(frozen=True)
class Weigh:
    """Measure the memory of these processes."""

    members: tuple[Member, ...]


@dataclass(frozen=True)
class Wake:
    """Let the core see the time again at this moment of the loop."""

    at: float


Action = Grant | Refuse | Launch | Stop | Ping | Weigh | Wake
