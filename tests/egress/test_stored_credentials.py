"""The proxy with credentials that are stored for its tenants."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path

import pytest
from aiohttp import web
from authorization import AuthorizationServer
from egress.client import Answer, ModelClient, connected
from egress.upstream import Upstream, serving, whole_stream
from pydantic import SecretStr
from stores import opened
from warmline_service.config import ProviderSettings
from warmline_service.credentials import Secret, TokenEndpoint, Wallet
from warmline_service.egress import Access, AnthropicProvider, Credential, Egress
from warmline_service.errors import Reason
from warmline_service.vault import Vault
from warmline_service.worker import Slot

KEY = "sk-ant-api-operators"


class Now:
    """A clock that stands still until it is set."""

    time = 1_800_000_000.0

    def __call__(self) -> float:
        return self.time


@pytest.fixture
def now() -> Now:
    return Now()


@pytest.fixture
async def server() -> AsyncIterator[AuthorizationServer]:
    """One that is up."""
    made = AuthorizationServer()
    async with made.serving():
        yield made


@pytest.fixture
async def wallet(tmp_path: Path, server: AuthorizationServer, now: Now) -> AsyncIterator[Wallet]:
    """One that can renew."""
    async with opened("", tmp_path) as store:
        endpoint = TokenEndpoint(server.settings())
        wallet = Wallet(store.credentials, Vault(bytes(32)), endpoint, now)
        yield wallet
        await wallet.aclose()


@pytest.fixture
async def upstream(tasks_end: None, server: AuthorizationServer) -> AsyncIterator[Upstream]:
    """A provider that takes the operator's key, and the tokens that are good at this moment."""
    upstream = Upstream()

    async def behave(request: web.Request) -> web.StreamResponse:
        token = request.headers.get("authorization", "").removeprefix("Bearer ")
        if token in server.access or request.headers.get("x-api-key") == KEY:
            return await whole_stream(request)
        await request.read()
        error = {"type": "authentication_error", "message": f"not {token}"}
        return web.json_response({"type": "error", "error": error}, status=401)

    upstream.behave = behave
    async with serving(upstream):
        yield upstream


@pytest.fixture
async def egress(upstream: Upstream, wallet: Wallet) -> AsyncIterator[Egress]:
    """An egress in front of it."""
    settings = ProviderSettings(base_url=upstream.url, connect_timeout=5, read_timeout=5)
    egress = Egress(AnthropicProvider(settings, Credential(SecretStr(KEY)), wallet))
    await egress.start()
    yield egress
    await egress.aclose()


@pytest.fixture
async def client(egress: Egress, slot: Slot) -> AsyncIterator[ModelClient]:
    """A client of a slot of acme's, whose session names `max`."""
    await egress.open_endpoint(slot)
    egress.bind(slot.id, Access("acme", "session", stored="max"))
    async with connected(slot.sock) as client:
        yield client


async def put_tokens(
    wallet: Wallet, server: AuthorizationServer, expires_at: float | None = None
) -> str:
    access, refresh = server.give()
    secret = Secret(access, refresh)
    await wallet.put("acme", "max", secret, oauth=True, is_default=True, expires_at=expires_at)
    return access


def sent(upstream: Upstream) -> list[str]:
    """What the requests went out with."""
    return [
        each.headers.get("authorization", "") or each.headers["x-api-key"]
        for each in upstream.requests
    ]


async def test_a_tenants_default_comes_before_the_operators(
    egress: Egress, wallet: Wallet, server: AuthorizationServer, upstream: Upstream, slot: Slot
) -> None:
    """For that tenant alone; and another one from the next request on."""
    await egress.open_endpoint(slot)
    egress.bind(slot.id, Access("acme", "session"))
    async with connected(slot.sock) as client:
        await client.ask("hi")
        access = await put_tokens(wallet, server)
        assert (await client.ask("hi")).status == 200
        assert egress.paid_with(slot.id) == "max"
        await wallet.remove("acme", "max")
        await client.ask("hi")
        assert egress.paid_with(slot.id) == ""
    assert sent(upstream) == [KEY, f"Bearer {access}", KEY]


async def test_fifty_sessions_at_its_end_renew_it_once(
    egress: Egress, wallet: Wallet, server: AuthorizationServer, now: Now, tmp_path: Path
) -> None:
    """Each on a slot of its own."""
    await put_tokens(wallet, server, now.time)

    async def ask(client: ModelClient) -> Answer:
        return await client.ask("hi")

    async with AsyncExitStack() as stack:
        clients = []
        for number in range(50):
            root = tmp_path / f"n{number}"
            root.mkdir()
            slot = Slot(f"n{number}", root)
            await egress.open_endpoint(slot)
            egress.bind(slot.id, Access("acme", f"session-{number}"))
            clients.append(await stack.enter_async_context(connected(slot.sock)))
        answers = await asyncio.gather(*map(ask, clients))
    assert {answer.status for answer in answers} == {200}
    assert len(server.asked) == 1


async def test_a_refusal_in_mid_life_is_made_good(
    client: ModelClient, wallet: Wallet, server: AuthorizationServer, upstream: Upstream
) -> None:
    """The request goes out again, whole and once, and the CLI hears nothing of it."""
    old = await put_tokens(wallet, server)
    server.access.clear()
    answer = await client.ask("hi", "x" * 200_000)
    assert answer.status == 200
    (new,) = server.access
    assert sent(upstream) == [f"Bearer {old}", f"Bearer {new}"]
    first, second = upstream.requests
    assert await first.read() == await second.read()
    assert len(await second.read()) > 200_000
    assert len(server.asked) == 1


async def test_a_second_refusal_is_told(
    client: ModelClient,
    egress: Egress,
    wallet: Wallet,
    server: AuthorizationServer,
    upstream: Upstream,
) -> None:
    """And does not make us ask for tokens again and again."""
    await put_tokens(wallet, server)
    server.access.clear()
    server.answer = (200, '{"access_token": "sk-ant-oat01-useless", "refresh_token": "r"}')
    for _ in range(3):
        answer = await client.ask("hi")
        assert (answer.status, answer.error) == (401, "authentication_error")
        assert b"useless" not in answer.body
    assert egress.paid_with("s1") == "max"
    assert len(server.asked) == 1
    assert len(upstream.requests) == 4


async def test_a_token_that_cannot_be_renewed_pays_for_nothing(
    client: ModelClient,
    egress: Egress,
    wallet: Wallet,
    server: AuthorizationServer,
    upstream: Upstream,
    now: Now,
) -> None:
    """The provider is not asked; another one that is stored makes it good."""
    await put_tokens(wallet, server, now.time)
    server.refresh.clear()
    answer = await client.ask("hi")
    assert answer.status == 401
    assert b"SetCredential" in answer.body
    unpaid = egress.unpaid("s1")
    assert unpaid is not None
    assert unpaid.reason is Reason.CREDENTIAL_REJECTED
    assert not upstream.requests
    await put_tokens(wallet, server)
    assert (await client.ask("hi")).status == 200
    assert egress.unpaid("s1") is None


async def test_a_removed_one_pays_for_nothing(
    client: ModelClient, egress: Egress, upstream: Upstream
) -> None:
    """The operator does not pay for a session that named another."""
    assert (await client.ask("hi")).status == 401
    unpaid = egress.unpaid("s1")
    assert unpaid is not None
    assert unpaid.reason is Reason.CREDENTIAL_NOT_FOUND
    assert not upstream.requests


async def test_with_nothing_to_pay_with_nobody_is_asked(
    upstream: Upstream, wallet: Wallet, slot: Slot
) -> None:
    """Neither the tenant nor the operator has a credential."""
    egress = Egress(AnthropicProvider(ProviderSettings(base_url=upstream.url), None, wallet))
    await egress.start()
    await egress.open_endpoint(slot)
    egress.bind(slot.id, Access("acme", "session"))
    async with connected(slot.sock) as client:
        assert (await client.ask("hi")).status == 401
    assert not upstream.requests
    await egress.aclose()


async def test_what_is_too_large_to_keep_is_sent_once(
    client: ModelClient, wallet: Wallet, server: AuthorizationServer, upstream: Upstream
) -> None:
    """It is streamed through, and the refusal is the answer; the next request has the new token."""
    old = await put_tokens(wallet, server)
    server.access.clear()
    assert (await client.ask("x" * 5_000_000)).status == 401
    assert sent(upstream) == [f"Bearer {old}"]
    assert (await client.ask("x" * 5_000_000)).status == 200
    assert len(server.asked) == 1
