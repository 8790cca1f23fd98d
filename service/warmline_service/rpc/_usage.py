"""UsageService on the wire."""

from __future__ import annotations

import datetime as dt
import re
from collections.abc import Iterable
from functools import reduce
from typing import Any

import grpc
from warmline.v1 import usage_service_pb2 as pb
from warmline.v1 import usage_service_pb2_grpc as pb_grpc

from warmline_service.errors import field_invalid
from warmline_service.quota import Budget, Quota
from warmline_service.rpc._deserialize import checked
from warmline_service.rpc._interceptors import principal
from warmline_service.rpc._parse_admin import tenant_id_of
from warmline_service.store import UsageRow

_DAY = re.compile(r"\d{4}-\d{2}-\d{2}")
_MOST_DAYS = 366
_MICRO = 1e6


class UsageServicer(pb_grpc.UsageServiceServicer):
    """`UsageService` over the quota."""

    def __init__(self, quota: Quota) -> None:
        self._quota = quota

    async def GetUsage(
        self, request: pb.GetUsageRequest, context: grpc.aio.ServicerContext[Any, Any]
    ) -> pb.GetUsageResponse:
        """What a tenant has used."""
        del context
        checked(request)
        caller = principal()
        tenant = request.tenant_id or caller.tenant
        if tenant != caller.tenant:
            caller.require("admin")
            tenant_id_of(tenant, "tenant_id")
        first, last = _days(request)
        rows = await self._quota.usage(tenant, first, last)
        return pb.GetUsageResponse(
            days=map(_wire, rows),
            total=_wire(_sum(rows)),
            budgets=map(_budget, await self._quota.budgets(tenant)),
        )


def _days(request: pb.GetUsageRequest) -> tuple[str, str]:
    today = dt.datetime.now(dt.UTC).date()
    last = _day(request.end_day, "end_day", today)
    first = _day(request.start_day, "start_day", last.replace(day=1))
    if not 0 <= (last - first).days <= _MOST_DAYS:
        raise field_invalid("end_day", f"must be 0 to {_MOST_DAYS} days after the first one")
    return first.isoformat(), last.isoformat()


def _day(text: str, field: str, otherwise: dt.date) -> dt.date:
    if not text:
        return otherwise
    try:
        if _DAY.fullmatch(text):
            return dt.date.fromisoformat(text)
    except ValueError:
        pass
    raise field_invalid(field, "must be a day such as 2026-11-26")


def _sum(rows: Iterable[UsageRow]) -> UsageRow:
    return reduce(lambda total, row: total.plus(row), rows, UsageRow("", "", ""))


def _wire(row: UsageRow) -> pb.ModelUsage:
    out = pb.ModelUsage(day=row.day, model=row.model, turns=row.turns, model_requests=row.requests)
    out.usage.input_tokens = row.input
    out.usage.output_tokens = row.output
    out.usage.cache_read_input_tokens = row.cache_read
    out.usage.cache_creation_input_tokens = row.cache_creation
    out.usage.cost_usd = row.micro_usd / _MICRO
    return out


def _budget(budget: Budget) -> pb.Budget:
    out = pb.Budget(name=budget.name, limit=budget.limit, used=budget.used)
    if budget.resets_at is not None:
        out.reset_time.FromSeconds(round(budget.resets_at))
    return out
