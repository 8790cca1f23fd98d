"""An endpoint that stands in for a real provider, for tests of the proxy."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

from aiohttp import web

Behaviour = Callable[[web.Request], Awaitable[web.StreamResponse]]
USAGE = {"input_tokens": 11, "cache_read_input_tokens": 7, "cache_creation_input_tokens": 5}


class Upstream:
    """Does as `behave` says; keeps what it got. `came`: a request is here; `left`: a client went."""

    def __init__(self) -> None:
        self.behave: Behaviour = whole_stream
        self.requests: list[web.Request] = []
        self.peers: list[object] = []
        self.sizes: list[int] = []
        self.came = asyncio.Event()
        self.left = asyncio.Event()
        self.url = ""

    async def handle(self, request: web.Request) -> web.StreamResponse:
        """Keep the request and do as told."""
        self.requests.append(request)
        self.came.set()
        assert request.transport is not None
        self.peers.append(request.transport.get_extra_info("peername"))
        try:
            return await self.behave(request)
        except asyncio.CancelledError:
            self.left.set()
            raise

    async def swallow(self, request: web.Request) -> web.StreamResponse:
        """Read the body, count it, and answer."""
        size = 0
        async for piece in request.content.iter_any():
            size += len(piece)
        self.sizes.append(size)
        return await whole_stream(request)


@asynccontextmanager
async def serving(upstream: Upstream) -> AsyncIterator[None]:
    """Serve it at a free port of this machine."""
    app = web.Application(client_max_size=0)
    app.router.add_route("*", "/{path:.*}", upstream.handle)
    runner = web.AppRunner(app, handler_cancellation=True, shutdown_timeout=0.5, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    upstream.url = f"http://127.0.0.1:{runner.addresses[0][1]}/base"
    yield
    await runner.cleanup()


def frame(type_: str, **fields: object) -> bytes:
    """One event of a stream."""
    return f"event: {type_}\ndata: {json.dumps({'type': type_, **fields})}\n\n".encode()


def start() -> bytes:
    """The first event: what was read."""
    return frame("message_start", message={"model": "m-2", "usage": USAGE | {"output_tokens": 1}})


def delta(text: str) -> bytes:
    """A piece of text."""
    return frame("content_block_delta", index=0, delta={"type": "text_delta", "text": text})


def end(output: int) -> bytes:
    """The last events: what was written in all."""
    return frame("message_delta", delta={}, usage={"output_tokens": output}) + frame("message_stop")


async def begin(request: web.Request) -> web.StreamResponse:
    """Begin a stream."""
    await request.read()
    response = web.StreamResponse(
        headers={
            "content-type": "text/event-stream",
            "request-id": "req_1",
            "anthropic-ratelimit-requests-remaining": "9",
            "anthropic-organization-id": "org",
            "set-cookie": "a=b",
        }
    )
    await response.prepare(request)
    return response


async def whole_stream(request: web.Request) -> web.StreamResponse:
    """A short answer."""
    response = await begin(request)
    await response.write(start() + delta("hello") + end(42))
    return response


def answer(status: int, body: object, **headers: str) -> Behaviour:
    """Answer everything so."""

    async def behave(request: web.Request) -> web.StreamResponse:
        await request.read()
        return web.json_response(body, status=status, headers=headers)

    return behave
