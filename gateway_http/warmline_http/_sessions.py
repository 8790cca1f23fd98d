"""SessionService and UsageService as REST: one route for each method."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from fastapi import APIRouter, Header, Query
from pydantic import BaseModel, ConfigDict
from starlette.responses import Response
from warmline.v1 import session_service_pb2 as pb
from warmline.v1 import usage_service_pb2 as usage_pb

from warmline_http._call import Asked
from warmline_http._failure import Failure
from warmline_http._proto import FAILURES, INT32, Moment, Text, answer, told
from warmline_http._struct import fill_within

router = APIRouter(tags=["sessions"], responses=FAILURES)

Order = Literal["update_time", "update_time desc", "create_time", "create_time desc"]


class _Body(BaseModel):
    model_config = ConfigDict(extra="forbid")


class Fork(_Body):
    """Where to fork; see `ForkSessionRequest`."""

    turn_id: Text = ""
    idempotency_key: Text = ""


class Yes(_Body):
    """See `Allow`."""

    updated_input: dict[str, Any] | None = None
    remember: bool = False
    answers: dict[Text, Text] = {}


class No(_Body):
    """See `Deny`."""

    message: Text = ""
    interrupt: bool = False


class Decision(_Body):
    """`allow` or `deny`: one of the two; see `ApprovalDecision`."""

    allow: Yes | None = None
    deny: No | None = None


@router.get("/v1/sessions", responses=told(pb.ListSessionsResponse))
async def list_sessions(
    call: Asked,
    page_size: Annotated[int, Query(ge=0, le=INT32)] = 0,
    page_token: str = "",
    order_by: Order | None = None,
    updated_after: Moment | None = None,
    updated_before: Moment | None = None,
    title_contains: str = "",
    forked_from_session_id: str = "",
) -> Response:
    """The caller's sessions, page by page, those used last first."""
    request = pb.ListSessionsRequest(
        page_size=page_size, page_token=page_token, order_by=order_by or ""
    )
    if updated_after is not None:
        request.filter.updated_after.FromDatetime(updated_after)
    if updated_before is not None:
        request.filter.updated_before.FromDatetime(updated_before)
    request.filter.title_contains = title_contains
    request.filter.forked_from_session_id = forked_from_session_id
    try:
        return await answer(await call.unary("sessions", "ListSessions", request))
    except Failure as failure:
        # Called here as they are called in the query.
        raise failure.without("filter.") from failure


@router.get("/v1/sessions/{session_id}", responses=told(pb.GetSessionResponse))
async def get_session(call: Asked, session_id: str) -> Response:
    """One session, with the approvals that it waits for."""
    request = pb.GetSessionRequest(session_id=session_id)
    return await answer(await call.unary("sessions", "GetSession", request))


@router.delete("/v1/sessions/{session_id}", responses=told(pb.DeleteSessionResponse))
async def delete_session(call: Asked, session_id: str) -> Response:
    """Remove a session for good; a running turn is stopped first."""
    request = pb.DeleteSessionRequest(session_id=session_id)
    return await answer(await call.unary("sessions", "DeleteSession", request))


@router.post("/v1/sessions/{session_id}/fork", responses=told(pb.ForkSessionResponse))
async def fork_session(
    call: Asked,
    session_id: str,
    body: Fork | None = None,
    idempotency_key: Annotated[str, Header()] = "",
) -> Response:
    """A new session with the conversation of this one, up to a turn; the header `idempotency-key` will do."""
    wanted = body or Fork()
    request = pb.ForkSessionRequest(
        session_id=session_id,
        turn_id=wanted.turn_id,
        idempotency_key=wanted.idempotency_key or idempotency_key,
    )
    return await answer(await call.unary("sessions", "ForkSession", request))


@router.delete("/v1/sessions/{session_id}/turn", responses=told(pb.InterruptTurnResponse))
async def interrupt_turn(call: Asked, session_id: str) -> Response:
    """Stop the running turn; `outcome` says what that came to."""
    request = pb.InterruptTurnRequest(session_id=session_id)
    return await answer(await call.unary("sessions", "InterruptTurn", request))


@router.post(
    "/v1/sessions/{session_id}/approvals/{approval_id}", responses=told(pb.AnswerApprovalResponse)
)
async def answer_approval(
    call: Asked, session_id: str, approval_id: str, body: Decision
) -> Response:
    """Answer what a session asked: from another client, or hours later."""
    request = pb.AnswerApprovalRequest(session_id=session_id)
    decision = request.decision
    decision.approval_id = approval_id
    if (body.allow is None) == (body.deny is None):
        raise Failure.field("decision", "exactly one of `allow` and `deny` must be there")
    if body.deny is not None:
        decision.deny.message = body.deny.message
        decision.deny.interrupt = body.deny.interrupt
    if body.allow is not None:
        decision.allow.remember = body.allow.remember
        decision.allow.answers.update(body.allow.answers)
        if body.allow.updated_input is not None:
            place = decision.allow.updated_input
            place.SetInParent()
            fill_within(request, place, body.allow.updated_input, "allow.updated_input")
    return await answer(await call.unary("sessions", "AnswerApproval", request))


@router.get("/v1/usage", tags=["usage"], responses=told(usage_pb.GetUsageResponse))
async def get_usage(
    call: Asked, start_day: str = "", end_day: str = "", tenant_id: str = ""
) -> Response:
    """What the caller has used, by day and model, and what is left of its budgets."""
    request = usage_pb.GetUsageRequest(start_day=start_day, end_day=end_day, tenant_id=tenant_id)
    return await answer(await call.unary("usage", "GetUsage", request))
