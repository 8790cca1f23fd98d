"""What a session does, as the audit log keeps it: who said something, which tools ran, what it cost."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import structlog

from warmline_service.audit import AuditLog, Caller, caller, redacted
from warmline_service.chat._answers import Allow, Deny
from warmline_service.errors import Reason, WarmlineError
from warmline_service.sessions import Session, UserMessage
from warmline_service.sessions.events import (
    ApprovalOutcome,
    ApprovalRequested,
    ApprovalResolved,
    Body,
    Ending,
    Tokens,
    ToolCall,
    ToolResult,
    TurnCompleted,
    TurnFailed,
    kind_of,
)

_log = structlog.get_logger(__name__)

# Calls of which it is not known yet what became of them.
_MOST = 256
_NAME = 128


@dataclass
class _Call:
    turn_id: str
    id: str
    tool: str
    input: Mapping[str, Any]
    failed: bool = False


class Witness:
    """Sees everything that a session tells, and records what somebody will want to know."""

    def __init__(self, session: Session, log: AuditLog) -> None:
        self._session = session
        self._log = log
        self._callers: dict[str, Caller] = {}
        self._calls: dict[str, _Call] = {}
        self._asked: dict[str, tuple[str, ApprovalRequested]] = {}
        self._decided: tuple[str, Allow | Deny] | None = None
        self._sights: dict[type[Any], Callable[[Any, str], None]] = {
            ToolCall: self._called,
            ToolResult: self._returned,
            ApprovalRequested: self.asked,
            ApprovalResolved: self._resolved,
            TurnCompleted: self._ended,
            TurnFailed: self._ended,
        }

    def accepted(self, turn_id: str, message: UserMessage) -> None:
        """The caller's message has become a turn."""
        self._callers[turn_id] = caller()
        self._tell("turn.submitted", turn_id, caller(), detail=self._log.request_body(message.text))

    def decides(self, approval_id: str, decision: Allow | Deny) -> None:
        """The caller answers an approval, whose end is seen next."""
        self._decided = approval_id, decision

    def refused(self, error: WarmlineError) -> None:
        """The caller may not do something in this session."""
        if error.reason is Reason.POLICY_DENIED:
            who = caller()
            self._log.record_counted(
                "policy.refused",
                (self._session.tenant, who.actor),
                {"message": error.message, **error.metadata},
                outcome=error.reason.value,
                tenant=self._session.tenant,
                actor=who.actor,
                request_id=who.request_id,
                session_id=self._session.id,
            )

    def saw(self, body: Body, turn_id: str) -> None:
        """The session tells this."""
        sight = self._sights.get(type(body))
        if sight is None:
            return
        try:
            sight(body, turn_id)
        except Exception:  # noqa: BLE001  # a turn must not end because nobody could write it down
            _log.exception("not in the audit log", event=kind_of(body), session=self._session.id)

    def asked(self, asked: ApprovalRequested, turn_id: str) -> None:
        """A tool call waits for a yes."""
        self._asked[asked.id] = turn_id, asked

    def _called(self, call: ToolCall, turn_id: str) -> None:
        if len(self._calls) >= _MOST:
            self._settle(next(iter(self._calls)), "tool.unsettled", "unknown")
        self._calls[call.id] = _Call(turn_id, call.id, call.name, redacted(call.input))

    def _returned(self, result: ToolResult, turn_id: str) -> None:
        del turn_id
        call = self._calls.get(result.tool_call_id)
        if call is None:
            return
        if result.is_error:
            call.failed = True  # Or was not allowed: the end of the turn says which.
        else:
            self._settle(call.id, "tool.allowed", "ok")

    def _resolved(self, resolved: ApprovalResolved, turn_id: str) -> None:
        decided, self._decided = self._decided, None
        _, asked = self._asked.pop(resolved.id, ("", None))
        if asked is None:
            return
        decision = decided[1] if decided is not None and decided[0] == resolved.id else None
        own = decision.input if isinstance(decision, Allow) else None
        call = self._calls.pop(asked.tool_call_id, None)
        if call is None or own is not None:
            shown = redacted(asked.input if own is None else own)
            call = _Call(turn_id, asked.tool_call_id, asked.tool_name, shown)
        allowed = resolved.outcome is ApprovalOutcome.ALLOWED
        self._tell(
            "tool.allowed" if allowed else "tool.denied",
            turn_id,
            caller() if decision is not None else Caller(),
            outcome=resolved.outcome.value,
            detail=_detail(call, "approval") | ({"changed": True} if own is not None else {}),
        )

    def _ended(self, ending: Ending, turn_id: str) -> None:
        who = self._callers.pop(turn_id, Caller())
        self._settle_rest(ending, turn_id, who)
        self._asked = {i: each for i, each in self._asked.items() if each[0] != turn_id}
        detail: dict[str, Any] = {
            "models": {model: _tokens(used) for model, used in ending.usage.by_model.items()},
            "cost_usd": round(ending.usage.total.cost_usd, 6),
        }
        if isinstance(ending, TurnCompleted):
            outcome = ending.stop_reason.value
            detail |= {"requests": ending.model_requests, **self._log.response_body(ending.result)}
        else:
            outcome = ending.error.reason.value
            self.refused(ending.error)
        self._tell("turn.model_usage", turn_id, who, outcome=outcome, detail=detail)

    def _settle_rest(self, ending: Ending, turn_id: str, who: Caller) -> None:
        completed = isinstance(ending, TurnCompleted)
        denied = (
            {each.tool_call_id for each in ending.denials}
            if isinstance(ending, TurnCompleted)
            else set()
        )
        for call in [each for each in self._calls.values() if each.turn_id == turn_id]:
            if call.id in denied:
                self._settle(call.id, "tool.denied", "denied", who)
            elif call.failed and completed:
                self._settle(call.id, "tool.allowed", "failed", who)
            else:
                self._settle(call.id, "tool.unsettled", "unknown", who)

    def _settle(self, call_id: str, action: str, outcome: str, who: Caller | None = None) -> None:
        """No approval was asked for: what the session is set up with has decided."""
        call = self._calls.pop(call_id)
        who = who or self._callers.get(call.turn_id, Caller())
        self._tell(action, call.turn_id, who, outcome=outcome, detail=_detail(call, "rules"))

    def _tell(
        self,
        action: str,
        turn_id: str,
        who: Caller,
        *,
        outcome: str = "ok",
        detail: Mapping[str, Any],
    ) -> None:
        self._log.record(
            action,
            outcome=outcome,
            tenant=self._session.tenant,
            actor=who.actor,
            request_id=who.request_id,
            session_id=self._session.id,
            turn_id=turn_id,
            detail=detail,
        )


def _detail(call: _Call, by: str) -> dict[str, Any]:
    return {
        "tool": call.tool[:_NAME],
        "tool_call_id": call.id[:_NAME],
        "input": call.input,
        "by": by,
    }


def _tokens(used: Tokens) -> dict[str, Any]:
    return {
        "input": used.input,
        "output": used.output,
        "cache_read": used.cache_read,
        "cache_creation": used.cache_creation,
        "cost_usd": round(used.cost_usd, 6),
    }
