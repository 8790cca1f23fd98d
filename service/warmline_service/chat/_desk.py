"""What a session's process asks of the caller while a turn runs, until somebody answers."""

from __future__ import annotations

import asyncio
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import msgspec

from warmline_service.chat._answers import Allow, Deny, ToolAnswer
from warmline_service.chat._client_tools import Call, heard, returned
from warmline_service.chat._deferred import Deferral, deferrable
from warmline_service.chat._forwards import send
from warmline_service.chat._remember import remembered, updates_of
from warmline_service.chat._servers import SessionServers
from warmline_service.chat._turn import Emit, Turn
from warmline_service.config import LimitSettings
from warmline_service.errors import Reason, WarmlineError
from warmline_service.mcp import Reply, result
from warmline_service.sessions import CLIENT_SERVER, Session
from warmline_service.sessions.events import (
    ApprovalOutcome,
    ApprovalRequested,
    ApprovalResolved,
    CallOutcome,
    ClientToolCalled,
    ClientToolReturned,
)
from warmline_service.worker import (
    Capabilities,
    CliProcess,
    ControlCancelRequest,
    ControlRequest,
    repair,
)

# What a model asks at once; more is denied.
_MOST = 64
_NOBODY = "Nobody in this session can say yes to it."
_UNANSWERED = "Nobody has said yes in time."
_QUESTION = "AskUserQuestion"


@dataclass
class _Approval:
    """`process` is the one that asks; None while none does."""

    asked: ApprovalRequested
    process: CliProcess | None
    request_id: str
    timer: asyncio.TimerHandle


@dataclass
class _Call:
    called: ClientToolCalled
    process: CliProcess
    request_id: str
    message_id: str | int | None
    timer: asyncio.TimerHandle


class Desk:
    """Takes the process's questions and the caller's answers; each question has one end.

    `keep` stores the session's configuration when an answer has changed it. `deferral` is the approval
    that no process waits for. `hurried`: the service is going away, so none is to wait for one.
    """

    def __init__(
        self,
        session: Session,
        limits: LimitSettings,
        can: Capabilities,
        emit: Emit,
        keep: Callable[[], None],
        servers: SessionServers,
    ) -> None:
        self._servers = servers
        self.deferral: Deferral | None = None
        self.hurried: WarmlineError | None = None
        self._left = False
        self._changed = asyncio.Event()
        self._rested = 0.0
        self._resting: float | None = None
        self._session = session
        self._limits = limits
        self._can = can
        self._emit = emit
        self._keep = keep
        self._turn: Turn | None = None
        self._approvals: dict[str, _Approval] = {}
        self._calls: dict[str, _Call] = {}

    @property
    def waiting(self) -> bool:
        """Whether the turn waits for somebody's answer."""
        return bool(self._approvals or self._calls)

    @property
    def approvals(self) -> tuple[ApprovalRequested, ...]:
        """What waits for a yes, the oldest first."""
        return tuple(each.asked for each in self._approvals.values())

    @property
    def calls(self) -> tuple[ClientToolCalled, ...]:
        """What waits for the result of a tool, the oldest first."""
        return tuple(each.called for each in self._calls.values())

    @property
    def alone(self) -> ApprovalRequested | None:
        """The approval for which no process has to wait, while a process waits for nothing else."""
        if len(self._approvals) != 1 or self._calls:
            return None
        (only,) = self._approvals.values()
        able = deferrable(self._can, self._session.config, only.asked.tool_name)
        return only.asked if able and only.process is not None else None

    def rested(self) -> float:
        """For how many seconds the turn has waited for approvals that may take long."""
        now = asyncio.get_running_loop().time()
        return self._rested + (now - self._resting if self._resting is not None else 0.0)

    async def changed_within(self, seconds: float | None) -> bool:
        """Wait until what is asked changes, or the service is going away; False where it does not."""
        self._changed.clear()
        try:
            async with asyncio.timeout(seconds):
                await self._changed.wait()
        except TimeoutError:
            return False
        return True

    def hurry(self, error: WarmlineError) -> None:
        """The service is going away."""
        self.hurried = error
        self._changed.set()
        if self.deferral is not None:
            self.deferral.woken.set()

    def park(self) -> None:
        """No process waits any more for the approval that is alone."""
        (only,) = self._approvals.values()
        only.process = None
        self.deferral = Deferral(only.asked)

    def restore(self, turn: Turn, asked: ApprovalRequested) -> None:
        """What an earlier service has left open is asked in this turn."""
        self.begin(turn)
        timer = self._later(asked.expires_at - time.time(), lambda: self._expire(asked.id))
        self._approvals[asked.id] = _Approval(asked, None, "", timer)
        self.deferral = Deferral(asked)
        self._note()

    def leave(self) -> None:
        """Answer nothing more: what is open is another service's."""
        self._left = True
        for approval in self._approvals.values():
            approval.timer.cancel()

    def serve(self, process: CliProcess) -> None:
        """Answer this process from now on."""
        process.on_question = lambda question: self._on_question(process, question)

    def begin(self, turn: Turn) -> None:
        """What is asked from now on is asked in this turn."""
        if self._turn is not turn:
            self._rested, self._resting = 0.0, None
        self._turn = turn

    def end(self) -> None:
        """The turn has ended: nobody waits any more."""
        # The process may go on to another turn: nothing in it must wait for ever.
        for approval_id, approval in tuple(self._approvals.items()):
            if approval.process is not None:
                _deny(approval.process, approval.request_id, _NOBODY)
            self._resolve(approval_id, ApprovalOutcome.WITHDRAWN)
        self.deferral = None
        for call_id, call in tuple(self._calls.items()):
            self._reply(call, ToolAnswer("The turn has ended.", is_error=True))
            self._return(call_id, CallOutcome.WITHDRAWN)
        self._servers.turn_ended()
        self._turn = None

    def decide(self, approval_id: str, decision: Allow | Deny) -> None:
        """Answer an approval; raises APPROVAL_NOT_FOUND where nobody waits for it, DRAINING."""
        if self._left and self.hurried is not None:
            raise self.hurried
        found = self._approvals.get(approval_id)
        if found is None:
            raise approval_not_found(approval_id)
        if isinstance(decision, Allow):
            self._answer(found, self._allowed(found.asked, decision))
            self._resolve(approval_id, ApprovalOutcome.ALLOWED)
        else:
            refused: Reply = {
                "behavior": "deny",
                "message": decision.message or "The user said no.",
            }
            if decision.interrupt:
                refused |= {"interrupt": True}
            self._answer(found, refused)
            self._resolve(approval_id, ApprovalOutcome.DENIED)

    def settle(self, call_id: str, answer: ToolAnswer) -> bool:
        """Answer a call of the caller's tool; False where nobody waits for it."""
        found = self._calls.get(call_id)
        if found is None:
            return False
        self._reply(found, answer)
        self._return(call_id, CallOutcome.FAILED if answer.is_error else CallOutcome.RETURNED)
        return True

    def _on_question(
        self, process: CliProcess, question: ControlRequest | ControlCancelRequest
    ) -> None:
        if not process.alive:
            return  # What it asks while it is being ended is of no turn any more.
        if isinstance(question, ControlCancelRequest):
            self._withdrawn(process, question.request_id)
        elif question.request.subtype == "can_use_tool":
            self._ask(process, question)
        elif question.request.subtype == "mcp_message":
            self._hear(process, question)
        else:
            process.refuse(question)

    def _ask(self, process: CliProcess, question: ControlRequest) -> None:
        turn, config = self._turn, self._session.config
        if turn is None or not config.asks or len(self._approvals) >= _MOST:
            _deny(process, question.request_id, _NOBODY)
            return
        if self.deferral is not None and self.deferral.takes(process, question):
            return  # Not asked anew: the runner gives the answer, which has come.
        ask, limits = question.request, self._limits
        default = limits.deferred_timeout if config.defers else limits.approval_timeout
        timeout = config.approval_timeout or default
        approval_id = str(uuid.uuid4())
        asked = ApprovalRequested(
            approval_id,
            ask.tool_name,
            _decoded(ask.input, dict),
            ask.tool_use_id,
            time.time() + timeout,
            ask.description,
            tuple(
                each
                for each in _decoded(ask.permission_suggestions, list)
                if isinstance(each, dict)
            ),
            len(bytes(ask.input)),
        )
        timer = self._later(timeout, lambda: self._expire(approval_id))
        self._approvals[approval_id] = _Approval(asked, process, question.request_id, timer)
        self._note()
        self._emit(asked, turn.id, "")

    def _hear(self, process: CliProcess, question: ControlRequest) -> None:
        ask, tools = question.request, self._session.config.client_tools
        if ask.server_name != CLIENT_SERVER:
            self._servers.hear(process, question)
            return
        request, reply = heard(repair(bytes(ask.message)), tools)
        if request.method == "notifications/cancelled":
            self._withdraw_calls(process, lambda call: call.message_id == request.cancels)
        if not isinstance(reply, Call):
            send(process, question.request_id, reply)
        elif self._turn is None or len(self._calls) >= _MOST:
            busy = ToolAnswer("Too much is asked at once.", is_error=True)
            send(process, question.request_id, result(request.id, returned(busy)))
        else:
            self._call(process, question.request_id, request.id, reply)

    def _call(
        self, process: CliProcess, request_id: str, message_id: str | int | None, call: Call
    ) -> None:
        assert self._turn is not None
        call_id, timeout = str(uuid.uuid4()), call.tool.timeout
        size = len(msgspec.json.encode(call.input))
        until = time.time() + timeout
        called = ClientToolCalled(
            call_id, call.tool.name, call.input, call.tool_call_id, until, size
        )
        timer = self._later(timeout, lambda: self._expire_call(call_id))
        self._calls[call_id] = _Call(called, process, request_id, message_id, timer)
        self._note()
        self._emit(called, self._turn.id, "")

    def _allowed(self, asked: ApprovalRequested, decision: Allow) -> Reply:
        given = dict(asked.input if decision.input is None else decision.input)
        if decision.answers:
            given["answers"] = dict(decision.answers)
        answer: Reply = {"behavior": "allow", "updatedInput": given}
        if decision.remember and asked.tool_name != _QUESTION:
            updates = updates_of(asked, self._limits.forbidden_permission_modes)
            if updates:
                answer["updatedPermissions"] = list(updates)
                self._session.config = remembered(self._session.config, updates)
                self._keep()
        return answer

    def _expire(self, approval_id: str) -> None:
        self._answer(self._approvals[approval_id], _denial(_UNANSWERED))
        self._resolve(approval_id, ApprovalOutcome.EXPIRED)

    def _expire_call(self, call_id: str) -> None:
        self._reply(self._calls[call_id], ToolAnswer("There was no result in time.", is_error=True))
        self._return(call_id, CallOutcome.EXPIRED)

    def _withdrawn(self, process: CliProcess, request_id: str) -> None:
        for approval_id, approval in tuple(self._approvals.items()):
            if (approval.process, approval.request_id) == (process, request_id):
                self._resolve(approval_id, ApprovalOutcome.WITHDRAWN)
        self._withdraw_calls(process, lambda call: call.request_id == request_id)
        self._servers.withdrawn(process, request_id)

    def _withdraw_calls(self, process: CliProcess, meant: Callable[[_Call], bool]) -> None:
        for call_id, call in tuple(self._calls.items()):
            if call.process is process and meant(call):
                self._return(call_id, CallOutcome.WITHDRAWN)

    def _resolve(self, approval_id: str, outcome: ApprovalOutcome) -> None:
        self._approvals.pop(approval_id).timer.cancel()
        self._note()
        self._tell(ApprovalResolved(approval_id, outcome))

    def _answer(self, approval: _Approval, reply: Reply) -> None:
        if approval.process is not None:
            approval.process.answer(approval.request_id, reply)
        elif self.deferral is not None:
            self.deferral.answer(reply)

    def _note(self) -> None:
        """What is asked has changed."""
        now = asyncio.get_running_loop().time()
        if self._resting is not None:
            self._rested += now - self._resting
        self._resting = now if self._approvals and self._session.config.defers else None
        self._changed.set()

    def _return(self, call_id: str, outcome: CallOutcome) -> None:
        self._calls.pop(call_id).timer.cancel()
        self._note()
        self._tell(ClientToolReturned(call_id, outcome))

    def _tell(self, body: ApprovalResolved | ClientToolReturned) -> None:
        assert self._turn is not None
        self._turn.heard()
        self._emit(body, self._turn.id, "")

    def _reply(self, call: _Call, answer: ToolAnswer) -> None:
        send(call.process, call.request_id, result(call.message_id, returned(answer)))

    def _later(self, seconds: float, act: Callable[[], None]) -> asyncio.TimerHandle:
        return asyncio.get_running_loop().call_later(seconds, act)


def approval_not_found(approval_id: str) -> WarmlineError:
    """Nobody waits for this answer."""
    return WarmlineError(
        Reason.APPROVAL_NOT_FOUND,
        "Nobody waits for this approval.",
        metadata={"approvalId": approval_id[:64]},
    )


def _deny(process: CliProcess, request_id: str, why: str) -> None:
    process.answer(request_id, _denial(why))


def _denial(why: str) -> Reply:
    return {"behavior": "deny", "message": why}


def _decoded(raw: msgspec.Raw, kind: type) -> Any:
    try:
        return msgspec.json.decode(repair(bytes(raw)), type=kind)
    except (msgspec.MsgspecError, RecursionError):
        return kind()
