"""Every stream comes through nginx as it is told, though by default that keeps in buffers what it proxies."""

import asyncio
import tempfile
from collections.abc import AsyncGenerator, AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest
from chatting import kinds, read, socket_to, until
from conversing import Model
from fastapi import APIRouter
from nginx import running_nginx
from running import faking
from shared import ServiceThread, shared_service
from shimming import shim_to
from starlette.responses import StreamingResponse
from warmline_http import _app
from warmline_http._sse import HEADERS, EventStream, event

pytestmark = pytest.mark.shared_service

_TIMEOUT = 90.0
_HEARTBEAT = 0.3
# So many deltas, so many milliseconds apart.
_SLOWLY = "!deltas 6 200"


@dataclass(frozen=True)
class Stream:
    """A route that streams, a request to it, and what is in the events that the model's words make."""

    method: str
    path: str
    body: dict[str, Any] = field(default_factory=dict)
    marker: bytes = b"delta"
    # Of how many pieces it is at the least, when nobody keeps any.
    pieces: int = 3


_SAID = [{"role": "user", "content": _SLOWLY}]
_ASKED = {"model": "haiku", "max_tokens": 100, "stream": True, "messages": _SAID}
STREAMS = [
    Stream("GET", "/test/stream"),
    Stream("POST", "/v1/messages", _ASKED, b"content_block_delta"),
    # Whole messages: what the CLI says at first, and what the model has said.
    Stream("POST", "/v1/messages/keepalive", _ASKED, b"data: ", 2),
    Stream("POST", "/v1/chat/completions", _ASKED, b"delta"),
    Stream("POST", "/v1/chat/stream", {"message": _SLOWLY}, b"text_delta"),
    Stream("GET", f"/v1/chat/stream?message={_SLOWLY}", {}, b"text_delta"),
]


async def _told(heard: asyncio.Event) -> AsyncGenerator[bytes, None]:
    """An event; the next when that has arrived; and so on."""
    for _ in range(3):
        yield event(b'{"type":"delta"}')
        await heard.wait()
        heard.clear()


def _router(heard: asyncio.Event) -> APIRouter:
    router = APIRouter()

    @router.get("/test/stream", response_model=None)
    async def stream() -> EventStream:
        return EventStream(_told(heard), heartbeat=_HEARTBEAT)

    @router.get("/test/plain", response_model=None)
    async def plain() -> StreamingResponse:
        kept = {name: each for name, each in HEADERS.items() if name != "x-accel-buffering"}
        return StreamingResponse(_told(heard), headers=kept)

    return router


@pytest.fixture
def heard() -> asyncio.Event:
    """Set when an event has arrived."""
    return asyncio.Event()


@pytest.fixture(scope="module")
def service() -> Iterator[ServiceThread]:
    """One for all tests here."""
    with tempfile.TemporaryDirectory() as folder:
        with shared_service(Model(), cli=faking(Path(folder))) as thread:
            yield thread


@pytest.fixture
async def proxied(
    service: ServiceThread, heard: asyncio.Event, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[httpx.AsyncClient]:
    """A client of an nginx in front of a shim that has routes of the test's own as well."""
    monkeypatch.setattr(_app, "_ROUTERS", (*_app._ROUTERS, _router(heard)))
    async with shim_to(f"127.0.0.1:{service.port}", heartbeat=_HEARTBEAT) as shim:
        with running_nginx(shim.url) as url:
            async with httpx.AsyncClient(base_url=url, timeout=_TIMEOUT) as client:
                yield client


@asynccontextmanager
async def chunks_of(
    client: httpx.AsyncClient, stream: Stream
) -> AsyncIterator[AsyncIterator[bytes]]:
    """What comes of a stream, as it comes."""
    async with asyncio.timeout(_TIMEOUT):
        async with client.stream(stream.method, stream.path, json=stream.body or None) as answer:
            assert answer.status_code == 200
            assert answer.headers["content-type"].startswith("text/event-stream")
            yield answer.aiter_bytes()


@pytest.mark.parametrize("stream", STREAMS, ids=lambda stream: stream.path)
async def test_a_stream_is_told_as_it_happens(
    proxied: httpx.AsyncClient, heard: asyncio.Event, stream: Stream
) -> None:
    """Its events come one by one, long before it ends."""
    pieces = 0
    async with chunks_of(proxied, stream) as chunks:
        async for chunk in chunks:
            if stream.marker in chunk:
                pieces += 1
                heard.set()
    # In one piece where the proxy had kept them.
    assert pieces >= stream.pieces


async def test_silence_is_told_of(proxied: httpx.AsyncClient) -> None:
    """The heartbeats come through: a dead connection looks otherwise."""
    async with chunks_of(proxied, STREAMS[0]) as chunks:
        seen = b""
        async for chunk in chunks:
            seen += chunk
            if seen.count(b": still here") == 2:
                break
    assert b"delta" in seen


async def test_nginx_keeps_what_it_is_not_told_to_pass_on(proxied: httpx.AsyncClient) -> None:
    """Without the header nothing arrives: what the tests above show is no accident."""
    with pytest.raises(httpx.ReadTimeout):
        await proxied.get("/test/plain", timeout=1.0)


async def test_a_cut_stream_goes_on_through_it(proxied: httpx.AsyncClient) -> None:
    """By the id of the last event, in the query as in the header; each event once, and none missing."""
    first = await until(proxied, "POST", 2, json={"message": "!deltas 6 50"})
    rest = await read(proxied, "GET", params={"last_event_id": first[-1].id})
    again = await read(proxied, "GET", headers={"last-event-id": first[-1].id})
    told, retold = ([each.id for each in events if each.id] for events in (rest, again))
    assert told == retold
    assert first[-1].id not in told
    assert kinds(rest)[-1] == "done"
    whole = await read(proxied, "GET", params={"last_event_id": first[0].id})
    assert [each.id for each in whole if each.id][-len(told) :] == told


async def test_a_web_socket_comes_through(proxied: httpx.AsyncClient) -> None:
    """Its frames one by one, in both directions."""
    async with socket_to(str(proxied.base_url).rstrip("/")) as socket:
        await socket.send(open={})
        await socket.until("sessionOpened")
        await socket.send(message={"text": _SLOWLY})
        await socket.until("textDelta")
        assert not any("turnCompleted" in event for event in socket.seen)
        await socket.until("turnCompleted")
        await socket.send(halfClose={})
        assert await socket.ended() == (1000, "done")
