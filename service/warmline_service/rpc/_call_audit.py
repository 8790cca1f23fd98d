"""What calls leave in the audit log: who was not let in, what was not allowed, what operators did."""

from __future__ import annotations

import re
from typing import Any

import grpc
import structlog
from google.protobuf.json_format import Error, MessageToDict
from google.protobuf.message import Message

from warmline_service.audit import UNKNOWN, AuditLog, caller, network_of, redacted
from warmline_service.errors import Reason, WarmlineError
from warmline_service.rpc._status import CODES

_log = structlog.get_logger(__name__)

# Whoever calls these is an operator.
_ADMIN = ("/warmline.v1.AdminService/", "/warmline.v1.AuditService/")
_LOOKS = ("List", "Get")
# What is about who calls; the rest is about how often, or about the service.
_NOT_LET_IN = (grpc.StatusCode.UNAUTHENTICATED, grpc.StatusCode.PERMISSION_DENIED)


class CallAudit:
    """Records what the interceptors see."""

    def __init__(self, log: AuditLog) -> None:
        self._log = log

    def turned_away(self, error: WarmlineError, context: Any, method: str) -> None:
        """A caller was not let in: nobody knows him, or he may not call this."""
        if error.reason is Reason.POLICY_DENIED:
            self.refused(error, context, method)
        elif CODES[error.reason] in _NOT_LET_IN:
            peer = network_of(context.peer())
            self._log.record_counted(
                "auth.failed",
                (peer, error.reason.value),
                {"peer": peer, "method": method},
                outcome=error.reason.value,
                actor=UNKNOWN,
                request_id=caller().request_id,
            )

    def refused(self, error: WarmlineError, context: Any, method: str) -> None:
        """A call has failed; it is kept where the operator does not allow what it wanted."""
        if error.reason is not Reason.POLICY_DENIED:
            return
        who = caller()
        self._log.record_counted(
            "policy.refused",
            (who.tenant, who.actor),
            {"peer": network_of(context.peer()), "method": method, "message": error.message}
            | error.metadata,
            outcome=error.reason.value,
            tenant=who.tenant,
            actor=who.actor,
            request_id=who.request_id,
        )

    async def acted(self, request: Any, method: str, outcome: str = "ok") -> None:
        """A call has ended. What an operator has changed is answered when it is kept, if that can be."""
        if not method.startswith(_ADMIN) or bool(getattr(request, "page_token", None)):
            return
        name = method.rpartition("/")[2]
        # What is not well-formed may be anything: a secret in the wrong field, for one.
        given = _given(request) if outcome != Reason.FIELD_INVALID else _named(request)
        self._log.acted(
            "admin." + re.sub(r"(?<!^)(?=[A-Z])", "_", name).lower(),
            outcome=outcome,
            detail={"request": redacted(given)},
        )
        if not name.startswith(_LOOKS) and not await self._log.written():
            _log.error("an operator's act is not in the audit log yet", method=method)


def _named(request: Any) -> Any:
    """Which fields a request has, and nothing of what is in them."""
    if not isinstance(request, Message):
        return {}
    return {"fields": [field.name for field, _ in request.ListFields()]}


def _given(request: Any) -> Any:
    """A request as JSON has it; of a value that JSON cannot have, such as a time in the year 36 million, only
    that there was one."""
    if not isinstance(request, Message):
        return {}
    try:
        return MessageToDict(request)
    except (Error, ValueError, TypeError, OverflowError):
        return _named(request)
