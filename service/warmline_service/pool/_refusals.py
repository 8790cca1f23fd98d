"""The failures that a waiter can see."""

from __future__ import annotations

from warmline_service.errors import Reason, WarmlineError


def exhausted(waited: float, retry_after: float) -> WarmlineError:
    """POOL_EXHAUSTED: the deadline came first. Seconds."""
    return WarmlineError(
        Reason.POOL_EXHAUSTED,
        "No process became free in time.",
        metadata={"waitedSeconds": f"{waited:.3f}"},
        retry_after=retry_after,
    )


def queue_full(limit: int, retry_after: float) -> WarmlineError:
    """QUEUE_FULL: `limit` callers already wait."""
    return WarmlineError(
        Reason.QUEUE_FULL,
        f"{limit} callers already wait for a process.",
        metadata={"limit": str(limit)},
        retry_after=retry_after,
    )


def share_used(most: int, retry_after: float) -> WarmlineError:
    """QUOTA_EXCEEDED: the tenant has `most` processes, and none of them is idle."""
    return WarmlineError(
        Reason.QUOTA_EXCEEDED,
        f"This tenant has {most} processes at work already.",
        metadata={"limit": str(most), "quota": "processes"},
        retry_after=retry_after,
    )


def draining() -> WarmlineError:
    """DRAINING: this service takes nothing new."""
    return WarmlineError(Reason.DRAINING, "The service is shutting down.", retry_after=1.0)


def start_failed(cause: WarmlineError, retry_after: float) -> WarmlineError:
    """The failure of the last start, as one waiter's own error: each gets its own traceback."""
    return WarmlineError(
        cause.reason, cause.message, metadata=dict(cause.metadata), retry_after=retry_after
    )


def as_start_failure(error: BaseException) -> WarmlineError:
    """What a launch raised, in words that may be shown."""
    if isinstance(error, WarmlineError):
        return error
    if isinstance(error, TimeoutError):
        return WarmlineError(Reason.CLI_CRASHED, "A CLI process did not start in time.")
    return WarmlineError(Reason.CLI_CRASHED, "A CLI process could not be started.")
