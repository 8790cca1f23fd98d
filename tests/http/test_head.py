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
from websockets.exceptions import InvalidStatus

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


@pytest.fixture
async def shim() -> AsyncIterator[Shim]:
    """A shim with nothing behind it."""
    async with shim_to("127.0.0.1:1") as made:
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


HEADS: list[tuple[bytes, str]] = [
    (
        b"GET /livez HTTP/1.1\r\n" + _HOST + b"x: " + b"y" * 33_000 + b"\r\n\r\n",
        "HEADERS_TOO_LARGE",
    ),
    (b"GET /livez?" + b"y" * 40_000 + b" HTTP/1.1\r\n" + _HOST + b"\r\n", "HEADERS_TOO_LARGE"),
    (b"GET /livez HTTP/1.1\r\n" + _HOST + b"x: y\r\n" * 6000 + b"\r\n", "HEADERS_TOO_LARGE"),
    (b"GET /livez HTTP/1.1\r\n" + _HOST + b"x: " + b"y" * 3_000_000, "HEADERS_TOO_LARGE"),
    (b"GET /" + b"y" * 200_000, "HEADERS_TOO_LARGE"),
    (b"GET /livez\x00 HTTP/1.1\r\n" + _HOST + b"\r\n", "HTTP_INVALID"),
    (b"GET /livez HTTP/1.1\r\n\r\n", "HTTP_INVALID"),
    (b"\x16\x03\x01\x02\x00\x01\r\n\r\n", "HTTP_INVALID"),
]


@pytest.mark.parametrize(
    ("said", "reason"),
    HEADS,
    ids=["header", "path", "headers", "endless", "line", "zero", "no-host", "tls"],
)
async def test_a_head_that_cannot_be_served_is_named(shim: Shim, said: bytes, reason: str) -> None:
    """However much of it comes at a time; the client has the answer, and no reset, also while it sends."""
    status = 431 if reason == "HEADERS_TOO_LARGE" else 400
    async with wire_to(shim) as wire:
        wire.say(said)
        got, told = await wire.refusal()
    assert (got, told["error"]["reason"]) == (status, reason)
    assert told["error"]["status"] == status
    async with wire_to(shim) as wire:
        for piece in (said[:1], said[1:900], said[900:]):
            wire.say(piece)
            await asyncio.sleep(0.01)
        assert (await wire.refusal())[0] == status


async def test_a_head_is_as_large_as_is_said(shim: Shim) -> None:
    """Not more than `http.header_bytes` with all that belongs to it, and not less."""
    head = b"GET /livez HTTP/1.1\r\n" + _HOST + b"x: \r\n\r\n"
    for more, status in ((0, 200), (1, 431)):
        filling = b"y" * (32 * 1024 - len(head) + more)
        async with wire_to(shim) as wire:
            wire.say(head.replace(b"x: ", b"x: " + filling))
            assert (await wire.answer())[0] == status


async def test_a_large_head_is_refused_in_the_shape_of_its_route(shim: Shim) -> None:
    """Anthropic's, OpenAI's, and none for `HEAD`; a WebSocket's is no other."""
    large = b" HTTP/1.1\r\n" + _HOST + b"anthropic-version: 1\r\nx: " + b"y" * 40_000 + b"\r\n"
    shapes: dict[bytes, Any] = {
        b"POST /v1/messages": lambda told: told["error"]["type"] == "invalid_request_error",
        b"GET /v1/models": lambda told: told["error"]["type"] == "invalid_request_error",
        b"POST /v1/chat/completions": lambda told: told["error"]["code"] == "headers_too_large",
        b"GET /v1/chat/ws": lambda told: told["error"]["reason"] == "HEADERS_TOO_LARGE",
    }
    for line, says in shapes.items():
        async with wire_to(shim) as wire:
            wire.say(line + large + b"connection: upgrade\r\nupgrade: websocket\r\n\r\n")
            status, told = await wire.refusal()
        assert status == 431
        assert says(told)
    async with wire_to(shim) as wire:
        wire.say(b"HEAD /livez" + large + b"\r\n")
        assert (await wire.rest()).startswith(b"HTTP/1.1 431 ")


@pytest.mark.parametrize(
    ("more", "status"),
    [(b"x: " + b"y" * 9000, 431), (b"x: y\r\n" * 200 + b"x: y", 431), (b"content-length: 1", 400)],
    ids=["line", "headers", "body"],
)
async def test_a_handshake_that_cannot_be_read_is_refused(
    shim: Shim, more: bytes, status: int
) -> None:
    """What reads WebSockets takes less than what reads requests; nobody is left waiting for an answer."""
    handshake = (
        b"connection: upgrade\r\nupgrade: websocket\r\nsec-websocket-version: 13\r\n"
        b"sec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
    )
    async with wire_to(shim) as wire:
        wire.say(b"GET /v1/chat/ws HTTP/1.1\r\n" + _HOST + handshake + more + b"\r\n\r\n")
        assert (await wire.refusal())[0] == status


async def test_a_body_that_is_framed_badly_ends_the_connection(shim: Shim) -> None:
    """While its route reads it: the route learns that nobody waits."""
    head = b"content-type: application/json\r\ntransfer-encoding: chunked\r\n\r\n"
    async with wire_to(shim) as wire:
        wire.say(b"POST /v1/messages HTTP/1.1\r\n" + _HOST + head + b"2\r\n{ \r\n")
        await asyncio.sleep(0.1)
        wire.say(b"no length\r\n")
        status, told = await wire.refusal()
    assert (status, told["error"]["type"]) == (400, "invalid_request_error")


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


async def test_a_connection_that_is_one_too_many_is_refused() -> None:
    """In the shape of its route, also a WebSocket's; when another goes, it may come again."""
    request = b"GET /livez HTTP/1.1\r\n" + _HOST + b"\r\n"
    async with shim_to("127.0.0.1:1", connections=1) as shim:
        async with wire_to(shim) as first:
            first.say(request)
            assert (await first.answer())[0] == 200
            async with wire_to(shim) as second:
                second.say(b"GET /v1/models HTTP/1.1\r\n" + _HOST + b"\r\n")
                status, headers, told = await second.answer()
                assert (status, headers[b"retry-after"]) == (503, b"1")
                assert json.loads(told)["error"]["code"] == "too_many_connections"
                assert await second.rest() == b""
            with pytest.raises(InvalidStatus) as refused:
                await connect(f"{shim.url.replace('http', 'ws')}/v1/chat/ws")
            assert refused.value.response.status_code == 503
            assert b"TOO_MANY_CONNECTIONS" in (refused.value.response.body or b"")
        async with wire_to(shim) as third:
            third.say(request)
            assert (await third.answer())[0] == 200
