"""What the caller has used, in the round: totals, by provider, by model, and the last turns."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from contextlib import aclosing
from typing import Annotated, Any

from fastapi import APIRouter, Query
from pydantic import BaseModel
from warmline.v1 import chat_service_pb2 as chat_pb
from warmline.v1 import events_pb2 as events_pb
from warmline.v1 import model_service_pb2 as model_pb
from warmline.v1 import session_service_pb2 as session_pb
from warmline.v1 import usage_service_pb2 as usage_pb

from warmline_http._call import Asked, Call
from warmline_http._events import ENDS
from warmline_http._failure import Failure, within
from warmline_http._proto import FAILURES, dict_of

router = APIRouter(tags=["gateway"], responses=FAILURES)

# A turn that wrote more events since is not looked for.
_LOOK_BACK = 500
_AT_ONCE = 8
_MOST_MODELS = 1000


class Used(BaseModel):
    """So much."""

    turns: int = 0
    model_requests: int = 0
    input_tokens: int = 0
    output_tokens: int = 0
    cache_read_input_tokens: int = 0
    cache_creation_input_tokens: int = 0
    cost_usd: float = 0.0

    def add(self, row: usage_pb.ModelUsage) -> None:
        """Count a row in."""
        self.turns += row.turns
        self.model_requests += row.model_requests
        self.input_tokens += row.usage.input_tokens
        self.output_tokens += row.usage.output_tokens
        self.cache_read_input_tokens += row.usage.cache_read_input_tokens
        self.cache_creation_input_tokens += row.usage.cache_creation_input_tokens
        self.cost_usd += row.usage.cost_usd


class Turn(BaseModel):
    """How the last turn of a session ended."""

    session_id: str
    turn_id: str
    time: str
    model: str
    outcome: str
    usage: dict[str, Any] = {}
    latency: dict[str, Any] = {}


class Summary(BaseModel):
    """What was used since `start_day`, and what happened last."""

    summary: Used
    by_provider: dict[str, Used]
    by_model: dict[str, Used]
    recent: list[Turn]


@router.get("/gateway/metrics")
async def metrics(
    call: Asked,
    start_day: str = "",
    end_day: str = "",
    recent: Annotated[int, Query(ge=0, le=50)] = 10,
) -> Summary:
    """What the caller used, this month unless days are given, and the last turns of its last sessions."""
    request = usage_pb.GetUsageRequest(start_day=start_day, end_day=end_day)
    used: usage_pb.GetUsageResponse = await call.unary("usage", "GetUsage", request)
    page = model_pb.ListModelsRequest(page_size=_MOST_MODELS)
    models = (await call.unary("models", "ListModels", page)).models
    providers = {model.id: model.provider for model in models}
    default = next((model.id for model in models if model.is_default), "")
    return Summary(
        summary=_sum([used.total]),
        by_provider=_by(used.days, lambda row: providers.get(row.model, "unknown")),
        by_model=_by(used.days, lambda row: row.model),
        recent=await _recent(call, recent, default) if recent else [],
    )


def _by(rows: Iterable[usage_pb.ModelUsage], name_of: Any) -> dict[str, Used]:
    found: dict[str, Used] = {}
    for row in rows:
        found.setdefault(name_of(row), Used()).add(row)
    return found


def _sum(rows: Iterable[usage_pb.ModelUsage]) -> Used:
    total = Used()
    for row in rows:
        total.add(row)
    return total


async def _recent(call: Call, count: int, default: str) -> list[Turn]:
    request = session_pb.ListSessionsRequest(page_size=count)
    sessions = (await call.unary("sessions", "ListSessions", request)).sessions
    few = asyncio.Semaphore(_AT_ONCE)
    try:
        async with asyncio.TaskGroup() as group:
            looking = [group.create_task(_last_turn(call, few, each, default)) for each in sessions]
    except* Failure as failures:
        # One of them, which says as much as all.
        raise failures.exceptions[0] from None
    turns = [turn for task in looking if (turn := task.result()) is not None]
    return sorted(turns, key=lambda turn: turn.time, reverse=True)


async def _last_turn(
    call: Call, few: asyncio.Semaphore, session: session_pb.Session, default: str
) -> Turn | None:
    request = chat_pb.WatchRequest(session_id=session.id, kinds=ENDS, replay_only=True)
    request.after.seq = max(0, session.last_seq - _LOOK_BACK)
    last: events_pb.Event | None = None
    try:
        async with few, within(call.settings.call_timeout):
            async with aclosing(call.stream("chat", "Watch", request)) as replies:
                async for reply in replies:
                    last = reply.events[-1]
    except Failure as failure:
        # It may have been removed since.
        if failure.status != 404:
            raise
    return None if last is None else _turn(last, session.config.model or default)


def _turn(event: events_pb.Event, model: str) -> Turn:
    end = event.turn_completed
    failed = event.HasField("turn_failed")
    return Turn(
        session_id=event.session_id,
        turn_id=event.turn_id,
        time=event.time.ToJsonString(),
        model=model,
        outcome=Failure.of_status(event.turn_failed.status).reason if failed else "completed",
        usage=dict_of(end.usage),
        latency=dict_of(end.latency),
    )
