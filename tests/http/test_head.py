"""A request's line and headers, byte by byte: how long they may take, and how large they may be."""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import pytest
from shimming import Shim, shim_to
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import StreamingResponse
from starlette.routing import Route, WebSocketRoute
from starlette.websockets import WebSocket
from websockets.asyncio.client import connect

# What a test waits for a connection to be closed: more than the shim takes.
_PATIENCE = 20.0
_HOST = b"host: localhost\r\n"


@dataclass(frozen=True)
class Wire:
    """A connection, and what comes from it."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter

    def say(self, data: bytes) -> None:
        """Send some bytes."""
        self.writer.write(data)

    async def answer(self) -> tuple[int, dict[bytes, bytes], bytes]:
        """The next answer: status, headers and body."""
        async with asyncio.timeout(_PATIENCE):
            head = await self.reader.readuntil(b"\r\n\r\n")
            line, *lines = head.rstrip().split(b"\r\n")
            parts = (each.partition(b": ") for each in lines)
            headers = {name.lower(): value for name, _, value in parts}
            body = await self.reader.readexactly(int(headers.get(b"content-length", b"0")))
        return int(line.split()[1]), headers, body

    async def refusal(self) -> tuple[int, dict[str, Any]]:
        """An answer that ends the connection: status and error."""
        status, headers, body = await self.answer()
        assert headers[b"connection"] == b"close"
        assert await self.rest() == b""
        return status, json.loads(body)

    async def rest(self) -> bytes:
        """All until the connection is closed; a reset is a failure."""
        async with asyncio.timeout(_PATIENCE):
            return await self.reader.read()

    async def drip(self, data: bytes, every: float) -> None:
        """Send the same again and again, for as long as it is taken."""
        with contextlib.suppress(ConnectionError):
            while not self.reader.at_eof():
                self.writer.write(data)
                await self.writer.drain()
                await asyncio.sleep(every)


@asynccontextmanager
async def wire_to(shim: Shim) -> AsyncIterator[Wire]:
    """A new connection."""
    reader, writer = await asyncio.open_connection("127.0.0.1", int(shim.url.rpartition(":")[2]))
    try:
        yield Wire(reader, writer)
    finally:
        writer.close()
        with contextlib.suppress(ConnectionError):
            await writer.wait_closed()


@asynccontextmanager
async def dripping(wire: Wire, data: bytes) -> AsyncIterator[None]:
    """Somebody who sends a little again and again, much more often than anything is bounded by."""
    task = asyncio.create_task(wire.drip(data, 0.05))
    try:
        yield
    finally:
        task.cancel()
        await asyncio.wait({task})


@pytest.fixture
async def hasty() -> AsyncIterator[Shim]:
    """A shim that waits half a second."""
    async with shim_to("127.0.0.1:1", read_timeout=0.5) as made:
        yield made


async def test_a_connection_that_says_nothing_is_closed(hasty: Shim) -> None:
    """Without a word, since nothing was asked: browsers open some in advance."""
    async with wire_to(hasty) as wire:
        assert await wire.rest() == b""


async def test_half_a_head_is_waited_for_so_long(hasty: Shim) -> None:
    """It is answered by 408 in the shape of its route, and the connection closed."""
    async with wire_to(hasty) as wire:
        wire.say(b"POST /v1/messages HTTP/1.1\r\n" + _HOST)
        status, told = await wire.refusal()
    assert (status, told["type"]) == (408, "error")
    async with wire_to(hasty) as wire:
        wire.say(b"GET /livez HT")
        status, told = await wire.refusal()
    assert (status, told["error"]["reason"]) == (408, "HEAD_TIMEOUT")


async def test_a_head_that_drips_has_no_longer(hasty: Shim) -> None:
    """Each byte is no new beginning."""
    async with wire_to(hasty) as wire:
        wire.say(b"GET /livez HTTP/1.1\r\nx: ")
        async with dripping(wire, b"y"):
            assert (await wire.refusal())[0] == 408


async def test_a_second_head_is_bounded_too(hasty: Shim) -> None:
    """From its first byte; until then the connection is idle, which has its own time."""
    async with wire_to(hasty) as wire:
        wire.say(b"GET /livez HTTP/1.1\r\n" + _HOST + b"\r\n")
        assert (await wire.answer())[0] == 200
        await asyncio.sleep(0.8)
        wire.say(b"GET /livez HTTP/1.1\r\n" + _HOST + b"\r\n")
        assert (await wire.answer())[0] == 200
        wire.say(b"GET /l")
        assert (await wire.refusal())[0] == 408


async def test_a_body_that_drips_ends_the_connection(hasty: Shim) -> None:
    """The 408 says so, and what drips on is not read for ever."""
    head = b"content-type: application/json\r\ncontent-length: 1000\r\n\r\n"
    async with wire_to(hasty) as wire:
        wire.say(b"POST /v1/messages HTTP/1.1\r\n" + _HOST + head)
        async with dripping(wire, b" "):
            status, headers, _ = await wire.answer()
            assert (status, headers[b"connection"]) == (408, b"close")
            with contextlib.suppress(ConnectionError):
                assert await wire.rest() == b""


async def test_a_body_that_nobody_waits_for_is_bounded(hasty: Shim) -> None:
    """The rest of a request that has been answered, of a `GET` for one."""
    async with wire_to(hasty) as wire:
        wire.say(b"GET /livez HTTP/1.1\r\n" + _HOST + b"content-length: 1000\r\n\r\n")
        assert (await wire.answer())[0] == 200
        async with dripping(wire, b" "):
            with contextlib.suppress(ConnectionError):
                assert await wire.rest() == b""


async def test_what_has_begun_is_not_disturbed(monkeypatch: pytest.MonkeyPatch) -> None:
    """A stream, also where the client sends on, and a WebSocket: neither waits for a head."""

    async def pieces() -> AsyncIterator[bytes]:
        for _ in range(5):
            yield b"still here\n"
            await asyncio.sleep(0.2)

    async def stream(request: Request) -> StreamingResponse:
        return StreamingResponse(pieces())

    async def socket(socket: WebSocket) -> None:
        await socket.accept()
        await asyncio.sleep(1)
        await socket.send_text("still here")
        await socket.close()

    app = Starlette(routes=[Route("/stream", stream), WebSocketRoute("/socket", socket)])
    monkeypatch.setattr("warmline_http._serve.create_app", lambda settings: app)
    async with shim_to("127.0.0.1:1", read_timeout=0.3) as shim, wire_to(shim) as wire:
        wire.say(b"GET /stream HTTP/1.1\r\n" + _HOST + b"\r\nGET /")
        async with asyncio.timeout(_PATIENCE):
            await wire.reader.readuntil(b"\r\n0\r\n\r\n")
        async with connect(shim.url.replace("http", "ws") + "/socket", proxy=None) as client:
            assert await client.recv() == "still here"
