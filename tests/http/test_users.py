"""Users of one caller: who is who, and whose account pays; with the real CLI."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx
import pytest
from key_provider import Provider
from running import data_directory, service_in
from shimming import Shim, shim_before
from tenancies import tenant
from warmline_service.server import Service
from warmline_service.store import AuditQuery

pytestmark = pytest.mark.real_cli

KEEPALIVE = "/v1/messages/keepalive"
OPERATORS = "sk-ant-api03-0perat0rs"
ONE, TWO = "sk-ant-oat01-0ne-0ne", "sk-ant-oat01-tw0-tw0"
# As each arrives at the provider.
PAID = {ONE: f"Bearer {ONE}", TWO: f"Bearer {TWO}"}


@pytest.fixture
async def provider() -> AsyncIterator[Provider]:
    """It knows these."""
    made = Provider((OPERATORS, ONE, TWO))
    async with made.serving():
        yield made


@asynccontextmanager
async def shim_of(provider: Provider, **changes: Any) -> AsyncIterator[Shim]:
    """A shim before such a service."""
    async with service_of(provider, **changes) as service, shim_before(service) as shim:
        yield shim


@asynccontextmanager
async def service_of(
    provider: Provider, *, known: bool = False, **changes: Any
) -> AsyncIterator[Service]:
    """A service that takes credentials and has one; `known`: callers have to show who they are."""
    settings = {"kind": "anthropic", "base_url": provider.url, "caller_credentials": True}
    settings |= {} if known else {"api_key": OPERATORS}
    tenants: dict[str, Any] = {"tenants": [tenant("acme")[0]]} if known else {}
    more: dict[str, Any] = {
        "provider": settings | changes,
        "pool": {"min_spares": 0, "max_spares": 0},
    } | tenants
    with data_directory() as data:
        async with service_in(data, **more) as service:
            yield service


def body(text: str, token: str = "", **more: Any) -> dict[str, Any]:
    """A request of a user's, with a credential or without one."""
    asked: dict[str, Any] = {"model": "haiku", "max_tokens": 9} | more
    if token:
        asked["oauth_credentials"] = {"access_token": token}
    return asked | {"messages": [{"role": "user", "content": text}]}


def said(answer: httpx.Response) -> str:
    """The answer's text, from the CLI's lines."""
    lines = [line[6:] for line in answer.text.split("\n") if line.startswith("data: {")]
    return str(json.loads(lines[-1])["result"])


async def test_no_user_comes_into_anothers_conversation(provider: Provider) -> None:
    """Nor pays for it; each finds the own one again, on its process."""
    async with shim_of(provider) as shim:
        sessions = {}
        for who in (ONE, TWO, ""):
            answer = await shim.http.post(KEEPALIVE, json=body("mine is 1234", who))
            assert "message 1" in said(answer)
            sessions[who] = answer.headers["x-session-id"]
        assert len(set(sessions.values())) == 3
        for who in (TWO, ONE, ""):
            answer = await shim.http.post(KEEPALIVE, json=body("again", who))
            assert "message 2" in said(answer)
            assert '"start":"hot"' in answer.text
            assert answer.headers["x-session-id"] == sessions[who]
        order = [PAID[ONE], PAID[TWO], OPERATORS, PAID[TWO], PAID[ONE], OPERATORS]
        assert provider.seen == order


async def test_a_user_is_known_by_name_when_a_token_is_renewed(provider: Provider) -> None:
    """The conversation goes on, and the new token pays."""
    user = {"metadata": {"user_id": "ann"}}
    async with shim_of(provider) as shim:
        first = await shim.http.post(KEEPALIVE, json=body("one", ONE, **user))
        second = await shim.http.post(KEEPALIVE, json=body("two", TWO, **user))
        assert "message 2" in said(second)
        assert first.headers["x-session-id"] == second.headers["x-session-id"]
        other = await shim.http.post(KEEPALIVE, json=body("one", TWO, metadata={"user_id": "bob"}))
        assert "message 1" in said(other)
        assert provider.seen == [PAID[ONE], PAID[TWO], PAID[TWO]]


@pytest.mark.parametrize("path", ["/v1/messages", KEEPALIVE])
async def test_who_brings_a_credential_pays_with_it(provider: Provider, path: str) -> None:
    """Also for a session that is named, and that somebody else has begun."""
    async with shim_of(provider) as shim:
        first = await shim.http.post(path, json=body("one"))
        named = {"session_id": first.headers["x-session-id"]}
        second = await shim.http.post(path, json=body("two", ONE, **named))
        assert second.status_code == 200
        assert "message 2" in second.text
        assert provider.seen == [OPERATORS, PAID[ONE]]


async def test_a_credential_that_is_not_taken_is_not_passed_over(provider: Provider) -> None:
    """Nobody else pays in its place."""
    async with shim_of(provider, caller_credentials=False) as shim:
        first = await shim.http.post(KEEPALIVE, json=body("one"))
        named = {"session_id": first.headers["x-session-id"]}
        for asked in (body("two", ONE), body("two", ONE, **named)):
            answer = await shim.http.post(KEEPALIVE, json=asked)
            assert answer.status_code == 403
            assert answer.json()["error"]["type"] == "permission_error"
            assert ONE not in answer.text
        assert provider.seen == [OPERATORS]


async def test_who_shows_nothing_else_is_who_the_credential_says(provider: Provider) -> None:
    """Where the service has tenants by their credentials; elsewhere nobody."""
    async with shim_of(provider, known=True, caller_tenants=True) as shim:
        answer = await shim.http.post("/v1/messages", json=body("one", ONE))
        assert answer.status_code == 200
        for who, count in ((ONE, 1), (TWO, 0)):
            shown = {"authorization": f"Bearer {who}"}
            listed = (await shim.http.get("/v1/sessions", headers=shown)).json()
            assert len(listed.get("sessions", [])) == count
    async with shim_of(provider, known=True) as shim:
        assert (await shim.http.post("/v1/messages", json=body("one", ONE))).status_code == 401
    assert provider.seen == [PAID[ONE]]


async def test_who_shows_only_a_credential_is_refused_nowhere(provider: Provider) -> None:
    """It is shown at once, where the service has such tenants: the audit log has no failure."""
    async with service_of(provider, known=True, caller_tenants=True) as service:
        async with shim_before(service) as shim:
            for text in ("one", "two"):
                assert (await shim.http.post(KEEPALIVE, json=body(text, ONE))).status_code == 200
        assert service._audit is not None
        assert service._store is not None
        assert await service._audit.written()
        query = AuditQuery(descending=False, limit=100)
        actions = [each.action for each in await service._store.audit.select(query)]
    assert "session.created" in actions
    assert not [each for each in actions if each.startswith("auth")]
