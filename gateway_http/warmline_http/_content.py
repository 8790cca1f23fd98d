"""What a session holds: its events, its files, and all of it to take elsewhere."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Annotated, Any

import msgspec
from fastapi import APIRouter, Query, Request
from starlette.responses import Response
from warmline.v1 import chat_service_pb2 as chat_pb
from warmline.v1 import session_service_pb2 as pb

from warmline_http._call import Asked, Call
from warmline_http._download import Download
from warmline_http._events import DETAIL, Detail
from warmline_http._failure import Failure, within
from warmline_http._proto import FAILURES, UINT64, answer, dict_of, filled, told

router = APIRouter(tags=["sessions"], responses=FAILURES)

# A page of events ends with the first that goes beyond it.
_PAGE_BYTES = 4 * 1024 * 1024
_BYTES: dict[int | str, dict[str, Any]] = {
    200: {
        "description": "The file's bytes.",
        "content": {"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}},
    }
}
_EXPORT: dict[str, Any] = {
    "type": "object",
    "required": ["parts"],
    "properties": {"parts": {"type": "array", "items": {"type": "object"}}},
}
_PARTS: dict[int | str, dict[str, Any]] = {
    200: {
        "description": "`parts`, each a `warmline.v1.ExportSessionResponse` as protobuf JSON.",
        "content": {"application/json": {"schema": _EXPORT}},
    }
}


@router.get(
    "/v1/sessions/{session_id}/events",
    responses=told(chat_pb.WatchResponse, ", and `next_after` where there are more"),
)
async def list_events(
    call: Asked,
    session_id: str,
    after: Annotated[int, Query(ge=0, le=UINT64)] = 0,
    kinds: Annotated[list[str] | None, Query(max_length=50)] = None,
    detail: Detail = "blocks",
    limit: Annotated[int, Query(ge=1, le=10_000)] = 1000,
) -> Response:
    """What happened in a session after the event with this `seq`; `next_after` begins the next page."""
    request = chat_pb.WatchRequest(
        session_id=session_id, detail=DETAIL[detail], kinds=kinds or (), replay_only=True
    )
    request.after.seq = after
    async with within(call.settings.call_timeout):
        page, more = await _page(call, request, limit)
    body = await asyncio.to_thread(_page_text, page, more)
    return Response(body, media_type="application/json")


async def _page(
    call: Call, request: chat_pb.WatchRequest, limit: int
) -> tuple[chat_pb.WatchResponse, bool]:
    page, size = chat_pb.WatchResponse(), 0
    async with aclosing(call.stream("chat", "Watch", request)) as replies:
        async for reply in replies:
            for event in reply.events:
                if len(page.events) == limit or size > _PAGE_BYTES:
                    return page, True
                page.events.append(event)
                size += event.ByteSize()
    return page, False


def _page_text(page: chat_pb.WatchResponse, more: bool) -> bytes:
    body = {"events": []} | dict_of(page)
    if more:
        body["next_after"] = body["events"][-1]["seq"]
    return msgspec.json.encode(body)


@router.get("/v1/sessions/{session_id}/files", responses=told(pb.ListFilesResponse))
async def list_files(call: Asked, session_id: str) -> Response:
    """The files in a session's workspace; 409 while a turn runs."""
    request = pb.ListFilesRequest(session_id=session_id)
    return await answer(await call.unary("sessions", "ListFiles", request))


@router.get(
    "/v1/sessions/{session_id}/files/{path:path}", response_class=Response, responses=_BYTES
)
async def read_file(call: Asked, session_id: str, path: str) -> Response:
    """One file of a session's workspace, to be saved; 409 while a turn runs."""
    request = pb.ReadFileRequest(session_id=session_id, path=path)
    name = path.rpartition("/")[2]
    return Download(_data(call, request), name=name, timeout=call.settings.call_timeout)


async def _data(call: Call, request: pb.ReadFileRequest) -> AsyncGenerator[bytes, None]:
    async with aclosing(call.stream("sessions", "ReadFile", request)) as replies:
        async for reply in replies:
            yield reply.data


@router.get("/v1/sessions/{session_id}/export", response_class=Response, responses=_PARTS)
async def export_session(call: Asked, session_id: str, without_workspace: bool = False) -> Response:
    """A session as `POST /v1/sessions/import` takes it, here or elsewhere; 409 while a turn runs."""
    request = pb.ExportSessionRequest(session_id=session_id, without_workspace=without_workspace)
    return Download(
        _exported(call, request),
        name=f"{session_id}.json",
        timeout=call.settings.call_timeout,
        media_type="application/json",
    )


async def _exported(call: Call, request: pb.ExportSessionRequest) -> AsyncGenerator[bytes, None]:
    before = b'{"parts":['
    async with aclosing(call.stream("sessions", "ExportSession", request)) as parts:
        async for part in parts:
            yield before + await asyncio.to_thread(_part_text, part)
            before = b","
    yield b"]}"


def _part_text(part: pb.ExportSessionResponse) -> bytes:
    return msgspec.json.encode(dict_of(part))


@router.post(
    "/v1/sessions/import",
    responses=told(pb.ImportSessionResponse),
    openapi_extra={
        "requestBody": {
            "required": True,
            "content": {"application/json": {"schema": _EXPORT}},
        }
    },
)
async def import_session(call: Asked, request: Request) -> Response:
    """A new session from an export, of at most `http.body_bytes`."""
    parts = await asyncio.to_thread(_parts_of, await request.body())
    return await answer(await call.upload("sessions", "ImportSession", parts))


def _parts_of(body: bytes) -> list[pb.ImportSessionRequest]:
    try:
        # By Python's own reader, which bounds how deep it goes.
        document = json.loads(body)
    except (ValueError, RecursionError):
        raise Failure.field("body", "is no JSON") from None
    parts = document.get("parts") if isinstance(document, dict) else None
    if not isinstance(parts, list):
        raise Failure.field("parts", "must be a list: what an export has")
    return [_part_of(part, f"parts[{index}]") for index, part in enumerate(parts)]


def _part_of(part: object, field: str) -> pb.ImportSessionRequest:
    if not isinstance(part, dict):
        raise Failure.field(field, "must be an object with `session`, `transcript` or `workspace`")
    try:
        # What a newer service says more does no harm.
        return filled(pb.ImportSessionRequest(), part, ignore_unknown_fields=True)
    except ValueError as error:
        raise Failure.field(field, f"is no part of an export: {error}") from None
