"""Sessions on the wire: rows to messages, and requests for pages of them to queries."""

from __future__ import annotations

import base64
import binascii

import msgspec
from google.protobuf.timestamp_pb2 import Timestamp
from warmline.v1 import session_service_pb2 as pb

from warmline_service.errors import field_invalid
from warmline_service.rpc._listing import moment_of, page_size_of
from warmline_service.rpc._parse import session_id_of
from warmline_service.rpc._wire_config import wire_config
from warmline_service.sessions import config_of
from warmline_service.store import Query, SessionRow

_ORDERS = {"update_time": "updated_at", "create_time": "created_at"}
_TITLE = 80


class _Place(msgspec.Struct, array_like=True, forbid_unknown_fields=True):
    """The last session of a page, and the order in which it was the last."""

    order: str
    descending: bool
    value: float
    session_id: str


def wire_session(row: SessionRow, state: pb.SessionState.ValueType, last_seq: int) -> pb.Session:
    """A session as callers see it."""
    out = pb.Session(
        id=row.id,
        state=state,
        title=row.title,
        config=wire_config(config_of(row)),
        epoch=max(row.epoch, 1),
        last_seq=last_seq,
        turn_count=row.turn_count,
        forked_from_session_id=row.forked_from,
        forked_at_turn_id=row.forked_at,
    )
    _set_moment(out.create_time, row.created_at)
    _set_moment(out.update_time, row.updated_at)
    return out


def query_of(request: pb.ListSessionsRequest) -> Query:
    """A checked request for a page: one row more is asked for than the page has."""
    size = page_size_of(request.page_size)
    order, descending = _order_of(request.order_by)
    after = None
    if request.page_token:
        place = _place_of(request.page_token)
        if (place.order, place.descending) != (order, descending):
            raise field_invalid("page_token", "is of a request with another order_by")
        after = (place.value, place.session_id)
    wanted = request.filter
    if len(wanted.title_contains) > _TITLE:
        raise field_invalid("filter.title_contains", f"is longer than {_TITLE} characters")
    return Query(
        order=order,
        descending=descending,
        limit=size + 1,
        after=after,
        updated_from=moment_of(wanted, "updated_after"),
        updated_before=moment_of(wanted, "updated_before"),
        title_contains=wanted.title_contains.replace("\0", ""),
        forked_from=session_id_of(wanted.forked_from_session_id, "filter.forked_from_session_id"),
    )


def page_of(rows: list[SessionRow], query: Query) -> tuple[list[SessionRow], str]:
    """The rows of a page, and the token of the next one; empty where it is the last."""
    shown = rows[: query.limit - 1]
    if len(rows) < query.limit:
        return shown, ""
    last = shown[-1]
    place = _Place(query.order, query.descending, getattr(last, query.order), last.id)
    return shown, base64.urlsafe_b64encode(msgspec.json.encode(place)).decode()


def _order_of(order_by: str) -> tuple[str, bool]:
    name, _, direction = (order_by or "update_time desc").partition(" ")
    if name not in _ORDERS or direction not in ("", "desc"):
        raise field_invalid(
            "order_by", "must be update_time or create_time, with ` desc` or without"
        )
    return _ORDERS[name], direction == "desc"


def _place_of(token: str) -> _Place:
    try:
        data = base64.b64decode(token.encode(), altchars=b"-_", validate=True)
        place = msgspec.json.decode(data, type=_Place)
        session_id_of(place.session_id, "page_token")
    except (ValueError, binascii.Error, msgspec.MsgspecError) as error:
        raise field_invalid("page_token", "is none that this service gave") from error
    return place


def _set_moment(out: Timestamp, seconds: float) -> None:
    # Apart, so that `_moment_of` gives the same number again: a filter must find what is shown.
    out.seconds = int(seconds)
    out.nanos = round((seconds - out.seconds) * 1e9)
