"""The proxy in front of a provider: credentials in, everything streamed, usage metered."""

import asyncio
import io
import socket
from collections.abc import AsyncIterator

import aiohttp
import pytest
from aiohttp import web
from egress.client import MESSAGES, ModelClient, connected, request
from egress.upstream import Upstream, answer, begin, delta, end, frame, serving, start, whole_stream
from pydantic import SecretStr
from warmline_service.config import ProviderSettings
from warmline_service.egress import (
    Access,
    AnthropicProvider,
    Credential,
    Egress,
    Tokens,
    UpstreamError,
)
from warmline_service.worker import Slot

KEY = "sk-ant-api-operators"
ERROR = {"type": "error", "error": {"type": "rate_limit_error", "message": f"no: {KEY}"}}


@pytest.fixture
async def upstream(tasks_end: None) -> AsyncIterator[Upstream]:
    """The endpoint behind the proxy."""
    upstream = Upstream()
    async with serving(upstream):
        yield upstream


@pytest.fixture
async def egress(upstream: Upstream) -> AsyncIterator[Egress]:
    """An egress in front of it, with the operator's key."""
    settings = ProviderSettings(base_url=upstream.url + "/", connect_timeout=5, read_timeout=5)
    egress = Egress(AnthropicProvider(settings, Credential(SecretStr(KEY))))
    await egress.start()
    yield egress
    await egress.aclose()


async def test_the_answer_comes_through(client: ModelClient, upstream: Upstream) -> None:
    """Body, path and query arrive as they were sent, and so does the answer."""
    async with client.session.post(f"{MESSAGES}?beta=true", json=request("hi")) as response:
        assert b"hello" in await response.read()
    (got,) = upstream.requests
    assert got.raw_path == "/base/v1/messages?beta=true"
    assert got.host == upstream.url.split("/")[2]
    assert await got.json() == request("hi")


async def test_the_credential_is_swapped_in(client: ModelClient, upstream: Upstream) -> None:
    """Nothing that the slot sent as one goes out, under any name."""
    sent = {
        "x-api-key": "placeholder",
        "authorization": "Bearer placeholder",
        "cookie": "placeholder",
    }
    sent |= {"proxy-authorization": "placeholder", "x-forwarded-for": "placeholder"}
    async with client.session.post(MESSAGES, json=request("hi"), headers=sent) as response:
        await response.read()
    headers = upstream.requests[0].headers
    assert headers["x-api-key"] == KEY
    assert "placeholder" not in str(headers)
    assert "authorization" not in headers


async def test_a_tenants_credential_wins(egress: Egress, upstream: Upstream, slot: Slot) -> None:
    """An OAuth token goes as Bearer, with the beta that it needs."""
    await egress.open_endpoint(slot)
    egress.bind(slot.id, Access("t", "s", Credential(SecretStr("sk-ant-oat-theirs"), oauth=True)))
    async with connected(slot.sock) as client:
        client.session.headers["anthropic-beta"] = "a-1,b-2"
        await client.ask("hi")
    headers = upstream.requests[0].headers
    assert headers["authorization"] == "Bearer sk-ant-oat-theirs"
    assert "x-api-key" not in headers
    assert headers["anthropic-beta"] == "a-1,b-2,oauth-2025-04-20"


async def test_only_harmless_headers_pass(client: ModelClient, upstream: Upstream) -> None:
    """Out: what the API reads. Back: what the CLI reads, nothing of the operator's account."""
    client.session.headers["Anthropic-Version"] = "2023-06-01"
    client.session.headers["User-Agent"] = "claude-cli/9"
    client.session.headers["X-Other"] = "no"
    answer = await client.ask("hi")
    got = {name.lower(): value for name, value in upstream.requests[0].headers.items()}
    assert (got["anthropic-version"], got["user-agent"]) == ("2023-06-01", "claude-cli/9")
    assert got["accept-encoding"] == "identity"
    assert "x-other" not in got
    assert answer.headers["request-id"] == "req_1"
    assert answer.headers["anthropic-ratelimit-requests-remaining"] == "9"
    assert not answer.headers.keys() & {"set-cookie", "anthropic-organization-id"}


async def test_nothing_is_held_back(client: ModelClient, upstream: Upstream) -> None:
    """The first piece is here before the second is made."""
    go = asyncio.Event()

    async def behave(request: web.Request) -> web.StreamResponse:
        response = await begin(request)
        await response.write(start() + delta("one"))
        await asyncio.wait_for(go.wait(), 60)
        await response.write(end(2))
        return response

    upstream.behave = behave
    async with client.session.post(MESSAGES, json=request("hi")) as response:
        assert b"one" in await asyncio.wait_for(response.content.readany(), 60)
        go.set()
        assert b"message_stop" in await asyncio.wait_for(response.content.read(), 60)


async def test_a_client_that_leaves_stops_the_upstream(
    client: ModelClient, upstream: Upstream, egress: Egress
) -> None:
    """An interrupted answer costs what was written until then, and no more."""

    async def behave(request: web.Request) -> web.StreamResponse:
        response = await begin(request)
        await response.write(start())
        await asyncio.sleep(60)
        return response

    upstream.behave = behave
    async with client.session.post(MESSAGES, json=request("hi")) as response:
        await response.content.readany()
    await asyncio.wait_for(upstream.left.wait(), 60)
    assert egress.meter("s1").snapshot() == {"m-2": Tokens(11, 1, 7, 5)}


async def test_a_client_that_leaves_before_the_answer_stops_it_too(
    client: ModelClient, upstream: Upstream
) -> None:
    """Also while the model has not begun to write."""

    async def behave(request: web.Request) -> web.StreamResponse:
        await asyncio.sleep(60)
        return web.Response()

    upstream.behave = behave
    asking = asyncio.create_task(client.ask("hi"))
    await asyncio.wait_for(upstream.came.wait(), 60)
    asking.cancel()
    await asyncio.wait_for(upstream.left.wait(), 60)


async def test_the_meter_equals_what_upstream_reported(
    client: ModelClient, upstream: Upstream, egress: Egress
) -> None:
    """Streamed and whole answers add up under the model that answered."""
    await client.ask("hi")
    upstream.behave = answer(
        200, {"model": "m-2", "usage": {"input_tokens": 1, "output_tokens": 2}}
    )
    await client.ask("hi", stream=False)
    assert egress.meter("s1").snapshot() == {"m-2": Tokens(12, 44, 7, 5)}
    assert egress.meter("s1").requests == 2


async def test_counting_tokens_is_not_metered(client: ModelClient, egress: Egress) -> None:
    """It is passed on, and costs nothing."""
    async with client.session.post(f"{MESSAGES}/count_tokens", json=request("hi")) as response:
        assert response.status == 200
        await response.read()
    assert (egress.meter("s1").requests, egress.meter("s1").snapshot()) == (0, {})


@pytest.mark.parametrize("chunked", [True, False])
async def test_a_big_body_passes(client: ModelClient, upstream: Upstream, chunked: bool) -> None:
    """Twenty megabytes, with and without a length."""
    upstream.behave = upstream.swallow
    body = io.BytesIO(b"x" * 20_000_000)
    async with client.session.post(MESSAGES, data=body, chunked=chunked or None) as response:
        assert response.status == 200
        await response.read()
    assert upstream.sizes == [20_000_000]


@pytest.mark.parametrize("chunked", [True, False])
async def test_a_body_over_the_limit_is_refused(
    client: ModelClient, upstream: Upstream, chunked: bool
) -> None:
    """In the API's shape, whether its length was told or not."""
    upstream.behave = upstream.swallow
    body = io.BytesIO(b"x" * (64 * 1024 * 1024 + 1))
    async with client.session.post(MESSAGES, data=body, chunked=chunked or None) as response:
        assert response.status == 413
        assert (await response.json())["error"]["type"] == "request_too_large"


async def test_an_early_refusal_of_a_big_body_comes_through(
    client: ModelClient, upstream: Upstream
) -> None:
    """An upstream need not read a body to refuse it."""

    async def behave(request: web.Request) -> web.StreamResponse:
        return web.json_response(ERROR, status=401)

    upstream.behave = behave
    async with client.session.post(MESSAGES, data=io.BytesIO(b"x" * 20_000_000)) as response:
        assert response.status == 401


@pytest.mark.parametrize("status", [400, 401, 403, 429, 500, 529])
async def test_errors_pass_through(
    client: ModelClient, upstream: Upstream, egress: Egress, status: int
) -> None:
    """With what the CLI needs to wait, and without the credential that some endpoints repeat."""
    headers = {"retry-after": "3", "x-should-retry": "true", "server": "nginx"}
    upstream.behave = answer(status, ERROR, **headers)
    got = await client.ask("hi")
    assert (got.status, got.error) == (status, "rate_limit_error")
    assert (got.headers["retry-after"], got.headers["x-should-retry"]) == ("3", "true")
    assert KEY.encode() not in got.body
    assert b"[redacted]" in got.body
    assert egress.last_error("s1") == UpstreamError(status, "rate_limit_error", 3.0)


async def test_a_good_answer_clears_the_last_error(
    client: ModelClient, upstream: Upstream, egress: Egress
) -> None:
    """A retry that succeeded has no error."""
    upstream.behave = answer(529, ERROR)
    await client.ask("hi")
    upstream.behave = whole_stream
    await client.ask("hi")
    assert egress.last_error("s1") is None


async def test_an_error_inside_a_stream_is_noticed(
    client: ModelClient, upstream: Upstream, egress: Egress
) -> None:
    """The status was 200 by then; the event says what went wrong."""

    async def behave(request: web.Request) -> web.StreamResponse:
        response = await begin(request)
        await response.write(start() + frame("error", error={"type": "overloaded_error"}))
        return response

    upstream.behave = behave
    await client.ask("hi")
    assert egress.last_error("s1") == UpstreamError(529, "overloaded_error")


async def test_a_redirect_is_not_followed(client: ModelClient, upstream: Upstream) -> None:
    """The credential goes where the operator said and nowhere else."""
    upstream.behave = answer(307, {}, location=f"{upstream.url}/elsewhere")
    got = await client.ask("hi")
    assert (got.status, got.error) == (502, "api_error")
    assert len(upstream.requests) == 1
    assert "location" not in got.headers


async def test_a_cut_upstream_cuts_the_client(
    client: ModelClient, upstream: Upstream, egress: Egress
) -> None:
    """Half an answer must not look whole; what was read of it counts."""

    async def behave(request: web.Request) -> web.StreamResponse:
        response = await begin(request)
        await response.write(start() + delta("half"))
        assert request.transport is not None
        request.transport.close()
        return response

    upstream.behave = behave
    async with client.session.post(MESSAGES, json=request("hi")) as response:
        with pytest.raises(aiohttp.ClientPayloadError):
            await response.read()
    assert egress.last_error("s1") == UpstreamError(502, "api_error")
    assert egress.meter("s1").snapshot() == {"m-2": Tokens(11, 1, 7, 5)}


async def _ask_of(base_url: str, slot: Slot, **settings: float) -> tuple[int, dict[str, object]]:
    egress = Egress(
        AnthropicProvider(
            ProviderSettings(base_url=base_url, **settings), Credential(SecretStr(KEY))
        )
    )
    await egress.start()
    await egress.open_endpoint(slot)
    egress.bind(slot.id, Access("t", "s"))
    async with connected(slot.sock) as client:
        answer = await client.ask("hi")
    await egress.aclose()
    return answer.status, answer.json["error"]


async def test_an_upstream_that_refuses_is_a_502(slot: Slot) -> None:
    """The message is ours: no address, no secret."""
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        status, error = await _ask_of(f"http://127.0.0.1:{unused.getsockname()[1]}", slot)
    message = "The provider cannot be reached."
    assert (status, error) == (502, {"type": "api_error", "message": message})


async def test_an_upstream_that_says_nothing_is_a_504(slot: Slot) -> None:
    """Silence has a limit."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}"
        status, error = await _ask_of(url, slot, read_timeout=0.05)
    assert (status, error["type"]) == (504, "timeout_error")


async def test_one_connection_serves_many_requests(client: ModelClient, upstream: Upstream) -> None:
    """Whole answers give their connection back."""
    for _ in range(3):
        await client.ask("hi")
    assert len(set(upstream.peers)) == 1
