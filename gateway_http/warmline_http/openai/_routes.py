"""`/v1/chat/completions`, as the official SDKs speak to it."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from functools import partial

from fastapi import APIRouter, Response

from warmline_http import _sse
from warmline_http._answer import Answer
from warmline_http._call import Asked
from warmline_http._completion import ANSWERS, Key, begun, headers_of
from warmline_http._merging import PROGRESS
from warmline_http.openai._body import CompletionBody
from warmline_http.openai._reply import Reply
from warmline_http.openai._request import ignored_in, talk_of

router = APIRouter(tags=["openai"])


@router.post("/v1/chat/completions", responses=ANSWERS, response_model=None)
async def create_completion(
    call: Asked, body: CompletionBody, key: Key = ""
) -> Response | _sse.EventStream:
    """An answer of the model, in the format of OpenAI's Chat Completions API.

    `tools` run on the caller's side: the answer stops with `tool_calls`, and the next request with the
    `tool` messages goes on in the same process.
    """
    answer = await begun(call, talk_of(body, key))
    headers = headers_of(answer, ignored_in(body))
    options = body.stream_options
    reply = Reply(
        answer.opened.model, with_usage=options is not None and bool(options.include_usage)
    )
    if body.stream:
        return _sse.EventStream(
            _sse.to_the_end(call, _chunks(answer, reply), partial(_sse.failure_event, call)),
            heartbeat=call.settings.heartbeat,
            headers=headers,
        )
    return Response(await _whole(answer, reply), headers=headers, media_type="application/json")


async def _whole(answer: Answer, reply: Reply) -> bytes:
    try:
        async for _ in answer.steps():
            pass
    finally:
        answer.close()
    return reply.whole(answer.written)


async def _chunks(answer: Answer, reply: Reply) -> AsyncGenerator[bytes, None]:
    try:
        # Before the model answers: that it was heard.
        yield _sse.comment("warmline") + reply.begin()
        async for step in answer.steps():
            if step["type"] == PROGRESS:
                yield _sse.comment(step["text"])
            for chunk in reply.take(step):
                yield chunk
        for chunk in reply.end(answer.written):
            yield chunk
    finally:
        answer.close()
