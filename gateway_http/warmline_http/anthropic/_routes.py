"""`/v1/messages`, as the official SDKs speak to it."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from functools import partial
from typing import Any

import msgspec
from fastapi import APIRouter, Response
from pydantic import BaseModel
from pydantic_core import PydanticSerializationError
from warmline.v1 import model_service_pb2

from warmline_http import _sse
from warmline_http._answer import Answer
from warmline_http._call import Asked
from warmline_http._completion import ANSWERS, Key, begun, headers_of
from warmline_http._failure import Failure
from warmline_http._merging import PROGRESS
from warmline_http.anthropic._request import (
    NOT_THE_APIS,
    CountBody,
    MessagesBody,
    ignored_in,
    talk_of,
)

router = APIRouter(tags=["anthropic"])

# Clients of the API wait for a `ping` as for anything else, and show it to nobody.
_PING = _sse.event(b'{"type": "ping"}', "ping")


@router.post("/v1/messages", responses=ANSWERS, response_model=None)
async def create_message(
    call: Asked, body: MessagesBody, key: Key = ""
) -> Response | _sse.EventStream:
    """An answer of the model, in the format of Anthropic's Messages API.

    `tools` run on the caller's side: the answer stops with `tool_use`, and the next request with the
    `tool_result` goes on in the same process.
    """
    answer = await begun(call, talk_of(body, key))
    headers = {"request-id": call.request_id} | headers_of(answer, ignored_in(body))
    if body.stream:
        return _sse.EventStream(
            _sse.to_the_end(call, _steps(answer), partial(_sse.failure_event, call, name="error")),
            heartbeat=call.settings.heartbeat,
            headers=headers,
            beat=_sse.comment("still here") + _PING,
        )
    return Response(await _whole(answer), headers=headers, media_type="application/json")


class Counted(BaseModel):
    """How many tokens a request would have."""

    input_tokens: int


@router.post("/v1/messages/count_tokens")
async def count_tokens(call: Asked, body: CountBody) -> Counted:
    """The input tokens of a request, as the model's provider counts them; nothing is used by that.

    What is this service's alone in a body is not sent on, a credential neither.
    """
    request = model_service_pb2.CountTokensRequest(body=_json(body))
    answer = await call.unary("models", "CountTokens", request)
    return Counted(input_tokens=answer.input_tokens)


def _json(body: CountBody) -> bytes:
    try:
        return body.model_dump_json(exclude_unset=True, exclude=NOT_THE_APIS).encode()
    except PydanticSerializationError:
        # It does not say which; fields that we do not know may hold anything.
        for name in body.model_fields_set:
            if not _can_be_said(body, name):
                wrong = "has text that is no Unicode, or is nested too deeply"
                raise Failure.field(name[:200], wrong) from None
        raise


def _can_be_said(body: CountBody, name: str) -> bool:
    try:
        body.model_dump_json(include={name})
    except PydanticSerializationError:
        return False
    return True


async def _whole(answer: Answer) -> bytes:
    message: dict[str, Any] = {}
    try:
        async for step in answer.steps():
            if step["type"] == "message_start":
                message = step["message"]
    finally:
        answer.close()
    written = answer.written
    content = [each for each in written.content if each["type"] != "text" or each["text"]]
    told = {
        "content": content,
        "stop_reason": written.stop_reason,
        "stop_sequence": written.stop_sequence,
        "usage": written.usage,
    }
    return msgspec.json.encode(message | told)


async def _steps(answer: Answer) -> AsyncGenerator[bytes, None]:
    try:
        # Before the model answers: that it was heard.
        yield _sse.comment("warmline") + _PING
        async for step in answer.steps():
            if step["type"] == PROGRESS:
                yield _sse.comment(step["text"])
                continue
            yield _sse.event(msgspec.json.encode(step), step["type"])
    finally:
        answer.close()
