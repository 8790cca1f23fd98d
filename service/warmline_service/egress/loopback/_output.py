"""Where an answer goes: a stream that is written as it comes, or one object at the end."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Awaitable, Callable, Iterator
from typing import Protocol

import msgspec
from aiohttp import web

from warmline_service.egress._faults import error_body, error_response
from warmline_service.egress._meter import Reading, Tokens
from warmline_service.egress.loopback._steps import Call, Fail, Write
from warmline_service.egress.loopback._wire import (
    DeltaFrames,
    end_frames,
    frame,
    message,
    new_id,
    start_frame,
)

# Tokens that are made in one go: far below a millisecond.
_BATCH = 64
_STREAM_HEADERS = {"content-type": "text/event-stream; charset=utf-8", "cache-control": "no-cache"}


class Output(Protocol):
    """Takes an answer's blocks in order; `used` is what it has cost until now."""

    used: Tokens

    async def write(self, step: Write, pace: float) -> None:
        """A block of words, one each `pace` seconds."""

    async def call(self, step: Call) -> None:
        """A tool call."""

    async def fail(self, step: Fail, message: str) -> web.StreamResponse:
        """End with an error: the response, or an event in one that has begun."""
        ...

    async def end(self, stop: str) -> web.StreamResponse:
        """End well."""
        ...

    async def flush(self) -> None:
        """Put out what is held back to be written together with what follows."""


class _Base:
    def __init__(
        self, request: web.BaseRequest, model: str, used: Tokens, reading: Reading
    ) -> None:
        self.used = used
        self._request = request
        self._model = model
        self._reading = reading
        self._headers = {"request-id": new_id("req")}

    def _spend(self, tokens: int) -> None:
        self.used += Tokens(output=tokens)

    def _refuse(self, step: Fail, message: str) -> web.Response:
        headers = dict(self._headers)
        if step.retry_after is not None:
            headers["retry-after"] = str(step.retry_after)
        return error_response(step.status, message, headers)


class StreamOutput(_Base):
    """Server-sent events."""

    _response: web.StreamResponse | None = None
    _begun = False
    _index = 0
    _held = b""

    async def write(self, step: Write, pace: float) -> None:
        """A block of words, one each `pace` seconds."""
        kind, words = step.kind, step.words
        self._open({"type": kind, kind: ""} | _signature(kind, ""))
        deltas = DeltaFrames(self._index, f"{kind}_delta", kind)
        await _paced((deltas.of(piece) for piece in words.pieces()), words.count, pace, self._send)
        self._spend(words.count)
        if kind == "thinking":
            self._held += DeltaFrames(self._index, "signature_delta", "signature").of("loopback")
        self._close()

    async def call(self, step: Call) -> None:
        """A tool call."""
        self._open({"type": "tool_use", "id": new_id("toolu"), "name": step.name, "input": {}})
        deltas = DeltaFrames(self._index, "input_json_delta", "partial_json")
        self._held += deltas.of("") + deltas.of(step.input)
        self._spend(_tokens(step))
        self._close()

    async def fail(self, step: Fail, message: str) -> web.StreamResponse:
        """End with an error: the response, or an event in one that has begun."""
        if not self._begun:
            return self._refuse(step, message)
        return await self._send(b"event: error\ndata: %b\n\n" % error_body(step.status, message))

    async def end(self, stop: str) -> web.StreamResponse:
        """End well."""
        self._begin()
        self._reading.report(self.used)
        return await self._send(end_frames(stop, self.used))

    async def flush(self) -> None:
        """Put out what is held back to be written together with what follows."""
        if self._held:
            await self._send(b"")

    def _begin(self) -> None:
        if not self._begun:
            self._begun = True
            self._reading.begin(self._model, self.used)
            self._held = start_frame(self._model, self.used)

    def _open(self, block: dict[str, object]) -> None:
        self._begin()
        self._held += frame("content_block_start", index=self._index, content_block=block)

    def _close(self) -> None:
        self._reading.report(self.used)
        self._held += frame("content_block_stop", index=self._index)
        self._index += 1

    async def _send(self, data: bytes) -> web.StreamResponse:
        if self._response is None:
            self._response = web.StreamResponse(headers={**_STREAM_HEADERS, **self._headers})
            await self._response.prepare(self._request)
        held, self._held = self._held, b""
        await self._response.write(held + data)
        return self._response


class WholeOutput(_Base):
    """One JSON object."""

    def __init__(
        self, request: web.BaseRequest, model: str, used: Tokens, reading: Reading
    ) -> None:
        super().__init__(request, model, used, reading)
        self._blocks: list[dict[str, object]] = []

    async def write(self, step: Write, pace: float) -> None:
        """A block of words, one each `pace` seconds."""
        await asyncio.sleep(step.words.count * pace)
        block: dict[str, object] = {"type": step.kind, step.kind: step.words.text}
        self._blocks.append(block | _signature(step.kind, "loopback"))
        self._spend(step.words.count)

    async def call(self, step: Call) -> None:
        """A tool call."""
        self._blocks.append(
            {
                "type": "tool_use",
                "id": new_id("toolu"),
                "name": step.name,
                "input": msgspec.Raw(step.input.encode()),
            }
        )
        self._spend(_tokens(step))

    async def fail(self, step: Fail, message: str) -> web.StreamResponse:
        """End with an error."""
        return self._refuse(step, message)

    async def end(self, stop: str) -> web.StreamResponse:
        """End well."""
        self._reading.begin(self._model, self.used)
        body = msgspec.json.encode(message(self._model, self.used, self._blocks, stop))
        return web.Response(body=body, content_type="application/json", headers=self._headers)

    async def flush(self) -> None:
        """Nothing goes out before the end."""


def _signature(kind: str, value: str) -> dict[str, object]:
    return {"signature": value} if kind == "thinking" else {}


def _tokens(step: Call) -> int:
    return max(1, len(step.input) // 4)


async def _paced(
    frames: Iterator[bytes], count: int, pace: float, send: Callable[[bytes], Awaitable[object]]
) -> None:
    """Send `count` frames, the n-th `n * pace` seconds after the first, late ones together."""
    loop = asyncio.get_running_loop()
    start, sent = loop.time(), 0
    while sent < count:
        due = 1 + int((loop.time() - start) / pace) if pace else count
        batch = list(itertools.islice(frames, min(max(1, due - sent), _BATCH)))
        sent += len(batch)
        await send(b"".join(batch))
        # Also where nothing is to be waited for: others get their turn on the loop.
        ahead = start + sent * pace - loop.time() if sent < count else 0.0
        await asyncio.sleep(max(0.0, ahead))
