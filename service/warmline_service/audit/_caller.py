"""On whose behalf something is done: known where a call begins, and to all that is done in its task."""

from __future__ import annotations

import contextvars
from dataclasses import dataclass

# What the service does by itself.
SERVICE = "service"
# Somebody of whom it is not known yet who it is.
UNKNOWN = "unknown"


@dataclass(frozen=True)
class Caller:
    """Who made the call: the tenant, the id of the key, and the id of the call."""

    tenant: str = ""
    actor: str = SERVICE
    request_id: str = ""


_ITSELF = Caller()
_caller: contextvars.ContextVar[Caller] = contextvars.ContextVar("audit_caller")


def caller() -> Caller:
    """Who made the call that is being served; the service itself outside of calls."""
    return _caller.get(_ITSELF)


def set_caller(who: Caller) -> None:
    """What is done in this task from now on is done for somebody."""
    _caller.set(who)
