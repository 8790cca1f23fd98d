"""When an idle process has to go, and when it is looked after: pure rules of the keeper."""

from __future__ import annotations

from warmline_service.config import PoolSettings
from warmline_service.pool._actions import Why
from warmline_service.pool._books import IDLE, Books, Member
from warmline_service.worker import ProcessState

# A process that was measured once grows slowly; the reading itself costs milliseconds of a core.
WEIGH_EVERY = 15.0
# Longer than a stop may take: what is still there then is stopped again.
STUCK_AFTER = 30.0


def reason_to_stop(
    member: Member, settings: PoolSettings, generation: int, now: float
) -> Why | None:
    """Why a process that is not in a turn has to go, wherever it is idle; None if it may stay."""
    if member.generation < generation:
        return Why.RETIRED
    if now >= member.expires_at:
        return Why.AGED
    if member.bytes > settings.process_limit_bytes:
        return Why.OVERSIZE
    return None


def is_forgotten(member: Member, settings: PoolSettings, now: float) -> bool:
    """Whether a session has left its process idle for too long."""
    return member.state is ProcessState.HOT and now >= member.since + settings.idle_ttl


def pings_due(books: Books, settings: PoolSettings, now: float) -> list[Member]:
    """Idle processes that were not heard of for too long."""
    return [
        member
        for member in books.all_in(*IDLE)
        if not member.pinging and now >= max(member.since, member.pinged_at) + settings.ping_after
    ]


def weighings_due(books: Books, now: float) -> tuple[Member, ...]:
    """Processes whose size is unknown, old, or from before their last turn ended."""
    present = books.all_in(
        ProcessState.SPARE, ProcessState.RESERVED, ProcessState.BUSY, ProcessState.HOT
    )
    return tuple(
        member
        for member in present
        if now >= member.measured_at + WEIGH_EVERY
        or (member.state in IDLE and member.measured_at < member.since)
    )


def stuck(books: Books, now: float) -> list[Member]:
    """Processes whose stop has come to nothing."""
    return [
        member
        for member in books.all_in(ProcessState.STOPPING)
        if now >= member.since + STUCK_AFTER
    ]
