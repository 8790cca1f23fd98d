"""`/v1/messages/keepalive`: the CLI's own lines as events, on a process that stays the caller's."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from functools import partial
from typing import Any

import msgspec
from fastapi import APIRouter
from google.protobuf.json_format import MessageToDict
from warmline.v1 import events_pb2 as pb

from warmline_http import _sse
from warmline_http._answer import Answer
from warmline_http._call import Asked
from warmline_http._completion import Key, begun, headers_of
from warmline_http._failure import Failure
from warmline_http._merging import Written
from warmline_http._progress import progress_of
from warmline_http.anthropic._request import KEPT, MessagesBody, ignored_in, talk_of

router = APIRouter(tags=["anthropic"])

_DONE = _sse.event(b"[DONE]")
# What callers of this route know; the CLI has lines of other types, which come and go with its versions.
_TYPES = frozenset({"system", "assistant", "user", "result"})


class _Line(msgspec.Struct):
    type: str = ""
    message: dict[str, Any] = {}  # msgspec copies an empty default
    parent_tool_use_id: str | None = None


_line = msgspec.json.Decoder(_Line)


@router.post(
    "/v1/messages/keepalive",
    response_model=None,
    responses={200: {"content": {"text/event-stream": {}}}},
)
async def keepalive(call: Asked, body: MessagesBody, key: Key = "") -> _sse.EventStream:
    """A turn as the CLI tells it: `data: {"type": "system", ...}`, `assistant`, `result`; then `[DONE]`.

    The process stays: the next call of the same caller with the same set-up and one message goes on with
    the conversation, as does one with the conversation so far, or with its `session_id`. Users of one caller
    are told apart by `metadata.user_id`, or by `oauth_credentials`. Where the model calls one of `tools`,
    the lines end, and the next request has the result. A line of the type `system` and the subtype
    `warmline` says which session it is and how its process was had.
    """
    answer = await begun(call, talk_of(body, key, kind=KEPT))
    headers = {"request-id": call.request_id} | headers_of(answer, ignored_in(body))
    tell = partial(_sse.failure_event, call)
    return _sse.EventStream(
        _sse.to_the_end(call, _lines(answer), tell, lambda: _DONE),
        heartbeat=call.settings.heartbeat,
        headers=headers,
    )


async def _lines(answer: Answer) -> AsyncGenerator[bytes, None]:
    try:
        yield _sse.comment("warmline")
        async for event in answer.events():
            if event.HasField("turn_started"):
                yield _sse.event(_receipt(event, answer))
            elif event.HasField("raw") and event.raw.type in _TYPES:
                _keep(answer.written, event.raw.json)
                yield _sse.event(event.raw.json.encode())
            elif event.turn_queued.position:
                yield _sse.comment(progress_of(event))
            elif event.HasField("client_tool_called"):
                break  # The caller's next request has the result, and goes on with the turn.
        await answer.name()
    except (Failure, asyncio.CancelledError, GeneratorExit):
        # What was said stays the user's last conversation, also for one who has gone before its end.
        await answer.keep()
        raise
    finally:
        answer.close()


def _receipt(event: pb.Event, answer: Answer) -> bytes:
    latency = MessageToDict(event.turn_started.latency, preserving_proto_field_name=True)
    start = str(latency.pop("start", "")).removeprefix("START_KIND_").lower()
    told = {"type": "system", "subtype": "warmline", "session_id": answer.opened.session_id}
    return msgspec.json.encode(told | {"start": start, "latency": latency})


def _keep(written: Written, line: str) -> None:
    """What a caller has of the answer when it sends the conversation back."""
    said = _line.decode(line)
    if said.type == "assistant" and said.parent_tool_use_id is None:
        written.content += said.message.get("content") or []
