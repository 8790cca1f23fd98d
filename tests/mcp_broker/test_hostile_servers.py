"""Servers that mean harm, or are broken: each is refused by a sentence, and costs only itself."""

import asyncio
import gzip
import json
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
from aiohttp import web
from mcp_servers import REACHABLE
from warmline_service.config import McpSettings
from warmline_service.mcp import Broker, State, Target

Handle = Callable[[web.BaseRequest], Awaitable[web.StreamResponse]]
_BOUND = 64 * 1024
_BROKEN = "it has hung up, or does not speak MCP as it should"


@asynccontextmanager
async def _serving(handle: Handle) -> AsyncIterator[str]:
    runner = web.ServerRunner(
        web.Server(handle, access_log=None, handler_cancellation=True), shutdown_timeout=0.1
    )
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    try:
        yield f"http://127.0.0.1:{runner.addresses[0][1]}/mcp"
    finally:
        await runner.cleanup()


async def _error_of(url: str, kind: Any = "http", **settings: Any) -> str:
    """Why a server cannot be had."""
    changed = asyncio.Event()
    broker = Broker(McpSettings(**(REACHABLE | {"message_bytes": _BOUND} | settings)))
    try:
        lease = broker.lease("t", Target(kind, url), changed.set)
        await asyncio.wait_for(changed.wait(), 90)
        assert lease.state.state is State.FAILED
        return lease.state.error
    finally:
        await broker.aclose()


async def _answer(request: web.BaseRequest, result: dict[str, Any]) -> web.Response:
    """A result to whatever was asked."""
    asked = await request.json()
    return web.json_response({"jsonrpc": "2.0", "id": asked.get("id", 0), "result": result})


async def test_an_answer_without_end_is_cut() -> None:
    """No more than the bound of it is held."""
    sent = 0

    async def endless(request: web.BaseRequest) -> web.StreamResponse:
        nonlocal sent
        response = web.StreamResponse(headers={"content-type": "application/json"})
        await response.prepare(request)
        while sent < 100 * 2**20:
            await response.write(b" " * 65536)
            sent += 65536
        return response

    async with _serving(endless) as url:
        # Of one request the library makes an error of the protocol.
        assert await _error_of(url) in ("it sends more than it may", _BROKEN)
    assert sent < 20 * 2**20


async def test_an_event_without_end_is_cut() -> None:
    """The same in a stream of events."""
    sent = 0

    async def endless(request: web.BaseRequest) -> web.StreamResponse:
        nonlocal sent
        response = web.StreamResponse(headers={"content-type": "text/event-stream"})
        await response.prepare(request)
        await response.write(b"data: ")
        while sent < 100 * 2**20:
            await response.write(b"x" * 65536)
            sent += 65536
        return response

    async with _serving(endless) as url:
        assert await _error_of(url)
    assert sent < 20 * 2**20


async def test_a_compressed_answer_is_refused() -> None:
    """A few bytes may stand for all the memory there is."""

    async def bomb(request: web.BaseRequest) -> web.Response:
        await request.read()
        body = gzip.compress(b" " * 10_000_000)
        headers = {"content-type": "application/json", "content-encoding": "gzip"}
        return web.Response(body=body, headers=headers)

    async with _serving(bomb) as url:
        assert await _error_of(url) == "it compresses what it was asked not to"


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
async def test_a_redirect_elsewhere_is_not_followed(status: int) -> None:
    """With the tenant's headers least of all."""
    reached: list[str] = []

    async def victim(request: web.BaseRequest) -> web.Response:
        reached.append(request.path)
        return web.Response()

    async with _serving(victim) as elsewhere:

        async def redirect(request: web.BaseRequest) -> web.Response:
            await request.read()
            return web.Response(status=status, headers={"location": elsewhere})

        async with _serving(redirect) as url:
            assert await _error_of(url)
            assert await _error_of(url, "sse")
    assert reached == []


async def test_an_older_server_cannot_have_its_messages_sent_elsewhere() -> None:
    """It names the place to which they are posted; only its own will do."""
    reached: list[str] = []

    async def victim(request: web.BaseRequest) -> web.Response:
        reached.append(request.path)
        return web.Response()

    async with _serving(victim) as elsewhere:

        async def endpoint(request: web.BaseRequest) -> web.StreamResponse:
            response = web.StreamResponse(headers={"content-type": "text/event-stream"})
            await response.prepare(request)
            await response.write(f"event: endpoint\ndata: {elsewhere}\n\n".encode())
            await asyncio.sleep(5)
            return response

        async with _serving(endpoint) as url:
            assert await _error_of(url, "sse", connect_timeout=2.0)
    assert reached == []


@pytest.mark.parametrize(
    "body", [b"", b"{}", b"[]", b"\xff\xfe", b"null", b'{"jsonrpc":"2.0","id":0}', b"[" * 50_000]
)
async def test_what_is_no_mcp_is_refused(body: bytes) -> None:
    """Whatever it is."""

    async def garbage(request: web.BaseRequest) -> web.Response:
        await request.read()
        return web.Response(body=body, content_type="application/json")

    async with _serving(garbage) as url:
        assert await _error_of(url, connect_timeout=2.0)


async def test_too_many_tools_are_refused() -> None:
    """Each would be sent to the model with every request."""
    tool = {"name": "t", "description": "d" * 900, "inputSchema": {"type": "object"}}

    async def many(request: web.BaseRequest) -> web.StreamResponse:
        asked = await request.json()
        if asked["method"] == "tools/list":
            return await _answer(request, {"tools": [tool] * 50, "nextCursor": "more"})
        if asked["method"] == "initialize":
            info = {"name": "n", "version": "1"}
            told = {"protocolVersion": "2025-06-18", "capabilities": {}, "serverInfo": info}
            return await _answer(request, told)
        return web.Response(status=202 if "id" not in asked else 404)

    async with _serving(many) as url:
        assert await _error_of(url) == "it offers too much, or what is no tool"


async def test_a_server_that_says_nothing_is_given_up() -> None:
    """Within the time to connect."""

    async def silent(request: web.BaseRequest) -> web.Response:
        await asyncio.sleep(30)
        return web.Response()

    async with _serving(silent) as url:
        assert await _error_of(url, connect_timeout=0.5) == "it did not answer within 0.5 s"


async def _endless(request: web.BaseRequest, status: int, **headers: str) -> web.StreamResponse:
    """A stream of events that says nothing and does not end."""
    response = web.StreamResponse(
        status=status, headers={"content-type": "text/event-stream"} | headers
    )
    await response.prepare(request)
    for _ in range(2000):
        await response.write(b": nothing\n\n" * 4096)
    return response


async def test_a_redirect_with_a_body_without_end_is_cut() -> None:
    """The library reads it whole before it looks at where it leads."""
    sent: list[web.StreamResponse] = []

    async def redirect(request: web.BaseRequest) -> web.StreamResponse:
        await request.read()
        response = await _endless(request, 307, location=str(request.url))
        sent.append(response)
        return response

    async with _serving(redirect) as url:
        assert await _error_of(url) == "it sends more than it may"
        assert await _error_of(url, "sse") == "it sends more than it may"
    assert sent == []  # None of them was read to its end.


async def test_what_answers_a_post_to_an_older_server_is_bounded() -> None:
    """It answers on its stream; the library throws away what comes here, after reading all of it."""
    sent: list[web.StreamResponse] = []

    async def older(request: web.BaseRequest) -> web.StreamResponse:
        if request.method == "POST":
            await request.read()
            sent.append(await _endless(request, 200))
        response = web.StreamResponse(headers={"content-type": "text/event-stream"})
        await response.prepare(request)
        await response.write(b"event: endpoint\ndata: /messages\n\n")
        await asyncio.sleep(30)
        return response

    async with _serving(older) as url:
        assert await _error_of(url, "sse", connect_timeout=3.0)
    assert sent == []


def _greeting(asked: dict[str, Any]) -> dict[str, Any]:
    """What a server of the older kind says to each message that wants an answer."""
    if asked["method"] == "initialize":
        info = {"name": "n", "version": "1"}
        return {"protocolVersion": "2025-06-18", "capabilities": {}, "serverInfo": info}
    return {"tools": [{"name": "t", "description": "d", "inputSchema": {"type": "object"}}]}


async def test_a_long_list_in_one_piece_is_refused() -> None:
    """It would be taken apart on the loop, which has others to serve."""
    tools = [{"name": f"t{number}", "inputSchema": {}} for number in range(60_000)]

    async def long(request: web.BaseRequest) -> web.StreamResponse:
        asked = await request.json()
        if asked["method"] == "tools/list":
            return await _answer(request, {"tools": tools})
        if asked["method"] == "initialize":
            return await _answer(request, _greeting(asked))
        return web.Response(status=202 if "id" not in asked else 404)

    async with _serving(long) as url:
        error = await _error_of(url, message_bytes=16 * 2**20)
    assert error in ("it offers too much, or what is no tool", _BROKEN)


async def test_questions_without_end_are_not_all_heard() -> None:
    """Each would be a task, which waits until the server takes its answer."""
    flooding = asyncio.Event()
    most = 0

    async def older(request: web.BaseRequest) -> web.StreamResponse:
        nonlocal most
        if request.method == "POST":
            asked = await request.json()
            if "method" in asked:
                if "id" in asked:
                    answers.put_nowait(
                        {"jsonrpc": "2.0", "id": asked["id"], "result": _greeting(asked)}
                    )
                return web.Response(status=202)
            await asyncio.sleep(30)  # An answer to a question is never taken.
            return web.Response(status=202)
        response = web.StreamResponse(headers={"content-type": "text/event-stream"})
        await response.prepare(request)
        await response.write(b"event: endpoint\ndata: /messages\n\n")
        for _ in range(2):
            answer = await answers.get()
            await response.write(f"event: message\ndata: {json.dumps(answer)}\n\n".encode())
        for number in range(3000):
            ping = {"jsonrpc": "2.0", "id": number, "method": "ping"}
            await response.write(f"event: message\ndata: {json.dumps(ping)}\n\n".encode())
            most = max(most, len(asyncio.all_tasks()))
        flooding.set()
        await asyncio.sleep(30)
        return response

    answers: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
    async with _serving(older) as url:
        broker = Broker(McpSettings(**REACHABLE))
        try:
            broker.lease("t", Target("sse", url), lambda: None)
            await asyncio.wait_for(flooding.wait(), 60)
        finally:
            await broker.aclose()
    assert most < 100


async def test_a_good_bye_that_is_drawn_out_ends() -> None:
    """It is a courtesy: nobody waits for its answer for longer than a moment."""
    parted = asyncio.Event()

    async def slow(request: web.BaseRequest) -> web.StreamResponse:
        if request.method == "DELETE":
            parted.set()
            response = web.StreamResponse()
            await response.prepare(request)
            for _ in range(200):
                await response.write(b" ")
                await asyncio.sleep(0.2)
            return response
        asked = await request.json() if request.method == "POST" else {}
        if asked.get("method") in ("initialize", "tools/list"):
            answer = await _answer(request, _greeting(asked))
            answer.headers["mcp-session-id"] = "s"
            return answer
        return web.Response(status=202 if asked and "id" not in asked else 404)

    async with _serving(slow) as url:
        broker, changed = Broker(McpSettings(**REACHABLE)), asyncio.Event()
        lease = broker.lease("t", Target("http", url), changed.set)
        await asyncio.wait_for(changed.wait(), 90)
        assert lease.state.state is State.CONNECTED
        async with asyncio.timeout(8):
            await broker.aclose()
        assert parted.is_set()


async def test_a_server_that_flaps_is_told_of_ever_more_rarely() -> None:
    """Each change is an event in every session that has it."""

    async def flapping(request: web.BaseRequest) -> web.StreamResponse:
        asked = await request.json() if request.method == "POST" else {}
        if asked.get("method") == "initialize":
            return await _answer(request, _greeting(asked))
        if asked.get("method") == "tools/list":
            tool = {"name": f"t{time.monotonic_ns()}", "inputSchema": {"type": "object"}}
            return await _answer(request, {"tools": [tool]})
        if request.method == "GET":
            response = web.StreamResponse(headers={"content-type": "text/event-stream"})
            await response.prepare(request)
            news = {"jsonrpc": "2.0", "method": "notifications/tools/list_changed"}
            for _ in range(200):
                await response.write(f"event: message\ndata: {json.dumps(news)}\n\n".encode())
                await asyncio.sleep(0.01)
            return response
        return web.Response(status=202 if "id" not in asked else 404)

    changes: list[int] = []
    async with _serving(flapping) as url:
        broker = Broker(McpSettings(**REACHABLE))
        try:
            broker.lease("t", Target("http", url), lambda: changes.append(1))
            await asyncio.sleep(4)
        finally:
            await broker.aclose()
    assert 1 <= len(changes) < 12
