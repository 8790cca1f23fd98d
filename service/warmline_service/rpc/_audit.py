"""AuditService on the wire."""

from __future__ import annotations

from typing import Any

import grpc
import msgspec
from warmline.v1 import audit_service_pb2 as pb
from warmline.v1 import audit_service_pb2_grpc as pb_grpc

from warmline_service.errors import field_invalid
from warmline_service.rpc._deserialize import checked
from warmline_service.rpc._listing import moment_of, page_size_of
from warmline_service.rpc._parse import session_id_of
from warmline_service.rpc._struct import fill_struct
from warmline_service.store import AuditQuery, AuditRow, AuditStore

_ORDERS = {"": True, "seq desc": True, "seq": False}
_TEXT = 128


class AuditServicer(pb_grpc.AuditServiceServicer):
    """`AuditService` over the store's audit log."""

    def __init__(self, store: AuditStore) -> None:
        self._store = store

    async def ListAuditEvents(
        self, request: pb.ListAuditEventsRequest, context: grpc.aio.ServicerContext[Any, Any]
    ) -> pb.ListAuditEventsResponse:
        """A page of events."""
        del context
        checked(request)
        query = _query_of(request)
        rows = await self._store.select(query)
        shown = rows[: query.limit - 1]
        more = len(rows) == query.limit
        return pb.ListAuditEventsResponse(
            events=map(_event, shown), next_page_token=str(shown[-1].seq) if more else ""
        )


def _query_of(request: pb.ListAuditEventsRequest) -> AuditQuery:
    """A checked request for a page: one row more is asked for than the page has."""
    size = page_size_of(request.page_size)
    if request.order_by not in _ORDERS:
        raise field_invalid("order_by", "must be seq, with ` desc` or without")
    token, wanted = request.page_token, request.filter
    if token and not (token.isascii() and token.isdigit() and len(token) < 19):
        raise field_invalid("page_token", "is none that this service gave")
    return AuditQuery(
        descending=_ORDERS[request.order_by],
        limit=size + 1,
        after=int(token) if token else None,
        tenant=_text_of(wanted.tenant, "tenant"),
        actor=_text_of(wanted.actor, "actor"),
        action=_text_of(wanted.action_prefix, "action_prefix"),
        session_id=session_id_of(wanted.session_id, "filter.session_id"),
        since=moment_of(wanted, "start_time"),
        before=moment_of(wanted, "end_time"),
    )


def _text_of(text: str, name: str) -> str:
    if len(text) > _TEXT or not text.isprintable():
        raise field_invalid(f"filter.{name}", f"must be at most {_TEXT} printable characters")
    return text


def _event(row: AuditRow) -> pb.AuditEvent:
    out = pb.AuditEvent(
        seq=row.seq,
        tenant=row.tenant,
        actor=row.actor,
        action=row.action,
        session_id=row.session_id,
        turn_id=row.turn_id,
        request_id=row.request_id,
        outcome=row.outcome,
        prev_hash=row.prev_hash,
        hash=row.hash,
    )
    out.time.FromNanoseconds(int(row.time * 1e9))
    fill_struct(out.detail, _detail(row.detail))
    return out


def _detail(text: str) -> dict[str, Any]:
    """What a row has; where that was changed into something else it is shown as it stands."""
    try:
        return msgspec.json.decode(text, type=dict[str, Any])
    except msgspec.MsgspecError:
        return {"text": text}
