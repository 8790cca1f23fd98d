"""Server-sent events: headers at once, a beginning, heartbeats, and an end that is told."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import aclosing

import msgspec
import structlog
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from warmline_http._asgi import gone
from warmline_http._call import Call
from warmline_http._failure import Failure
from warmline_http._shapes import body_of

_log = structlog.get_logger(__name__)

# More than proxies keep in a buffer before they pass it on (nginx: 4 or 8 KiB).
_PADDING = b" " * 8192
# So much is taken from a source before a slow client has taken what came before.
_HELD = 256 * 1024
HEADERS = {
    "content-type": "text/event-stream; charset=utf-8",
    "cache-control": "no-cache, no-transform",
    "x-accel-buffering": "no",
}


def comment(text: str) -> bytes:
    """A line that no client tells anybody of, large enough to come through a proxy's buffer."""
    return b": " + text.encode() + _PADDING + b"\n\n"


def event(data: bytes, name: str = "", identifier: str = "") -> bytes:
    """One event; `data` is one line."""
    head = f"event: {name}\n" if name else ""
    if identifier:
        head += f"id: {identifier}\n"
    return head.encode() + b"data: " + data + b"\n\n"


def failure_event(call: Call, failure: Failure, name: str = "") -> bytes:
    """A failure as one event, in the shape of the call's API."""
    return event(msgspec.json.encode(body_of(call.shape, failure, call.request_id)), name)


async def to_the_end(
    call: Call,
    chunks: AsyncGenerator[bytes, None],
    tell: Callable[[Failure], bytes],
    last: Callable[[], bytes] | None = None,
) -> AsyncGenerator[bytes, None]:
    """What a generator yields, what it failed with as `tell` says it, and `last`: no end is silent."""
    try:
        async with aclosing(chunks):
            async for chunk in chunks:
                yield chunk
    except Failure as failure:
        yield tell(failure)
    except Exception as error:  # noqa: BLE001  # whoever waits must learn of it
        _log.error("stream failed", request_id=call.request_id, exc_info=error)
        yield tell(Failure.fault(call.request_id))
    if last is not None:
        yield last()


class EventStream(Response):
    """A response that sends what a generator yields, and closes it when the client is gone.

    Failures are told by the generator (`to_the_end`): once it runs, the status has been said. `beat` is
    sent after every `heartbeat` seconds of silence. What is ready together is sent together: much of what
    a chunk costs is the sending.
    """

    def __init__(
        self,
        source: AsyncGenerator[bytes, None],
        *,
        heartbeat: float,
        headers: Mapping[str, str] | None = None,
        beat: bytes | None = None,
    ) -> None:
        super().__init__(headers=HEADERS | dict(headers or {}))
        # It has no length before it has ended.
        del self.headers["content-length"]
        self._source = source
        self._heartbeat = heartbeat
        self._beat = comment("still here") if beat is None else beat
        self._said = 0.0
        self._sending = asyncio.Lock()
        self._held = bytearray()
        self._more, self._room = asyncio.Event(), asyncio.Event()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve it."""
        del scope
        loop = asyncio.get_running_loop()
        async with aclosing(self._source):
            await send({"type": "http.response.start", "status": 200, "headers": self.raw_headers})
            self._said = loop.time()
            work = {
                asyncio.create_task(self._pump(send)),
                asyncio.create_task(self._beating(send)),
                asyncio.create_task(gone(receive)),
            }
            try:
                done, _ = await asyncio.wait(work, return_when=asyncio.FIRST_COMPLETED)
                for task in done:
                    task.result()
            finally:
                for task in work:
                    task.cancel()
                await asyncio.wait(work)

    async def _pump(self, send: Send) -> None:
        pulling = asyncio.create_task(self._pull())
        try:
            while self._held or not pulling.done():
                await self._more.wait()
                self._more.clear()
                chunk, self._held = bytes(self._held), bytearray()
                self._room.set()
                if chunk:
                    await self._say(send, chunk)
            pulling.result()
        finally:
            pulling.cancel()
            await asyncio.wait({pulling})
        await self._say(send, b"", more=False)

    async def _pull(self) -> None:
        try:
            async for chunk in self._source:
                self._held += chunk
                self._more.set()
                while len(self._held) >= _HELD:
                    self._room.clear()
                    await self._room.wait()
        finally:
            self._more.set()

    async def _beating(self, send: Send) -> None:
        loop = asyncio.get_running_loop()
        while True:
            left = self._said + self._heartbeat - loop.time()
            if left > 0:
                await asyncio.sleep(left)
            else:
                await self._say(send, self._beat)

    async def _say(self, send: Send, chunk: bytes, *, more: bool = True) -> None:
        async with self._sending:
            await send({"type": "http.response.body", "body": chunk, "more_body": more})
        self._said = asyncio.get_running_loop().time()
