"""The frames of a WebSocket: JSON text that is a `ChatRequest` in, a `ChatResponse` out."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from enum import Enum

import msgspec
from warmline.v1 import chat_service_pb2 as pb
from warmline.v1 import events_pb2 as events_pb

from warmline_http._failure import Failure
from warmline_http._proto import filled
from warmline_http.chat._json import json_of

# What takes longer than a moment is read beside the loop.
_LARGE = 32 * 1024
# Told while there is nothing to tell: a response without events.
NOTHING = "{}"


class HalfClose(Enum):
    """The frame that says: nothing more will be sent."""

    FRAME = "halfClose"


async def request_of(text: str | None) -> pb.ChatRequest | HalfClose:
    """What a frame says; None is one that is not text. Raises Failure."""
    if text is None:
        raise _invalid("A frame must be text, not binary.")
    if len(text) < _LARGE:
        return _request_of(text)
    return await asyncio.to_thread(_request_of, text)


async def response_of(events: Iterable[events_pb.Event]) -> str:
    """Events as a frame."""
    parts = [await json_of(event) for event in events]
    return f'{{"events": [{", ".join(parts)}]}}'


def close_code_of(failure: Failure) -> int:
    """How a connection is closed over a failure (RFC 6455, section 7.4.1, and 1013)."""
    if failure.reason == "FRAME_INVALID":
        return 1007
    if failure.status == 413:
        return 1009
    if failure.retry_after is not None or failure.status in (429, 502, 503, 504):
        return 1013
    return 1011 if failure.status >= 500 else 1008


def _request_of(text: str) -> pb.ChatRequest | HalfClose:
    try:
        value = msgspec.json.decode(text)
    except (msgspec.DecodeError, UnicodeError, RecursionError):
        raise _invalid("A frame must be JSON.") from None
    if value == {HalfClose.FRAME.value: {}}:
        return HalfClose.FRAME
    try:
        request = filled(pb.ChatRequest(), value)
    except ValueError as error:
        raise _invalid(f"A frame must be a ChatRequest: {error}") from None
    if request.WhichOneof("frame") is None:
        names = [field.name for field in pb.ChatRequest.DESCRIPTOR.fields]
        raise _invalid(f"A frame must have one of {', '.join(names)} or {HalfClose.FRAME.value}.")
    return request


def _invalid(text: str) -> Failure:
    return Failure(400, "FRAME_INVALID", text)
