"""Credentials that an operator stores, with the real CLI and a provider that looks at what it is sent."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Iterable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest
from authorization import AuthorizationServer
from google.protobuf.message import Message
from kept import contents
from key_provider import Provider
from parking import client_of, failure, say, start_of
from processes import descendants
from running import data_directory, kinds, running_client, service_in
from warmline.v1 import admin_service_pb2 as pb
from warmline.v1 import events_pb2
from warmline.v1 import session_config_pb2 as config_pb
from warmline_client import Client, Conversation, WarmlineError, connect

pytestmark = pytest.mark.real_cli

TENANT = "dev"  # Everybody's, where nobody is asked who he is.


@pytest.fixture
async def server() -> AsyncIterator[AuthorizationServer]:
    """An authorization server that is up."""
    made = AuthorizationServer()
    async with made.serving():
        yield made


@pytest.fixture
async def provider(server: AuthorizationServer) -> AsyncIterator[Provider]:
    """A provider that takes what the server has given."""
    made = Provider(server.access)
    async with made.serving():
        yield made


def settings(provider: Provider, server: AuthorizationServer, **more: Any) -> dict[str, Any]:
    here = {
        "kind": "anthropic",
        "base_url": provider.url,
        "stored_credentials": True,
        "oauth": {"token_url": server.url, "client_id": "warmline-test"},
    }
    return {"provider": here | more, "pool": {"min_spares": 0, "max_spares": 0}}


@pytest.fixture
async def client(provider: Provider, server: AuthorizationServer) -> AsyncIterator[Client]:
    """A service without a credential of its own."""
    async with running_client(**settings(provider, server)) as client:
        yield client


def tokens(server: AuthorizationServer, left: float | None = None) -> pb.SetCredentialRequest:
    """To store new tokens, with so many seconds left, as the tenant's default."""
    access, refresh = server.give()
    request = pb.SetCredentialRequest(tenant_id=TENANT, name="max", is_default=True)
    request.oauth.access_token = access
    request.oauth.refresh_token = refresh
    request.oauth.scopes.append("user:inference")
    request.oauth.subscription_type = "max"
    if left is not None:
        request.oauth.expire_time.FromSeconds(int(time.time() + left))
    return request


def named(name: str) -> config_pb.SessionConfig:
    return config_pb.SessionConfig(credential=config_pb.Credential(name=name))


async def test_a_session_pays_with_what_is_stored(
    client: Client, server: AuthorizationServer
) -> None:
    """By its name or by default; a token that expires or is refused is renewed, and no turn fails of it."""
    with pytest.raises(WarmlineError, match="CREDENTIAL_REJECTED"):
        async with client.chat() as chat:
            await say(chat, "hi")
    with pytest.raises(WarmlineError, match="CREDENTIAL_NOT_FOUND"):
        async with client.chat(config=named("max")) as chat:
            await say(chat, "hi")
    await client.admin.set_credential(tokens(server, left=0))
    async with client.chat(config=named("max")) as chat:
        assert (await say(chat, "hi"))[-1].HasField("turn_completed")
        await client.admin.set_credential(tokens(server))
        server.access.clear()  # The provider takes it no more.
        server.refresh.clear()
        events = await say(chat, "again")
        assert kinds(events)[-2:] == ["credential_required", "turn_failed"]
        required = events[-2].credential_required
        assert required.name == "max"
        assert "could not be renewed" in required.message
        assert "SetCredential" in required.message
        assert WarmlineError(events[-1].turn_failed.status).reason == "CREDENTIAL_REJECTED"
        await client.admin.set_credential(tokens(server))
        events = await say(chat, "and again")
        assert events[-1].HasField("turn_completed")
        assert start_of(events).start == events_pb2.START_KIND_HOT
        session_id = chat.session_id
    assert len(server.asked) == 2
    assert (await client.session(session_id)).config.credential.name == "max"
    async with client.chat() as chat:
        assert (await say(chat, "by default"))[-1].HasField("turn_completed")
        server.access.clear()
        assert (await say(chat, "renewed"))[-1].HasField("turn_completed")
    assert len(server.asked) == 3


async def test_an_update_names_another(
    client: Client, server: AuthorizationServer, provider: Provider
) -> None:
    """One that is not there is refused, and nothing has changed."""
    await client.admin.set_credential(tokens(server))
    request = pb.SetCredentialRequest(tenant_id=TENANT, name="key", api_key="k3y-of-acme")
    await client.admin.set_credential(request)
    server.access.add("k3y-of-acme")
    async with client.chat() as chat:
        await chat.update(credential=config_pb.Credential(name="nobody"))
        await say(chat, "hi")
        await chat.update(credential=config_pb.Credential(name="key"))
        await say(chat, "hi")
    assert provider.seen[0].startswith("Bearer ")
    assert provider.seen[-1] == "k3y-of-acme"


def _fields(message: Message) -> str:
    """All that a message says, its unknown fields too."""
    return f"{message} {message.SerializeToString()!r}"


async def test_nothing_ever_shows_it(
    server: AuthorizationServer, provider: Provider, capfd: pytest.CaptureFixture[str]
) -> None:
    """No answer, event, log, file, argument or environment, whether it is good, renewed or refused."""
    told: list[Message] = []
    secrets: set[str] = {"k3y-of-acme"}

    def note(request: pb.SetCredentialRequest) -> pb.SetCredentialRequest:
        secrets.update({request.oauth.access_token, request.oauth.refresh_token} - {""})
        return request

    with data_directory() as data:
        async with service_in(data, **settings(provider, server)) as service:
            async with connect(f"127.0.0.1:{service.port}") as client:
                admin = client.admin
                told.append(await admin.set_credential(note(tokens(server, left=0))))
                key = pb.SetCredentialRequest(tenant_id=TENANT, name="k", api_key="k3y-of-acme")
                told.append(await admin.set_credential(key))
                async with client.chat() as chat:
                    told += await say(chat, "::echo headers")
                    secrets |= server.access | server.refresh
                    processes = await asyncio.to_thread(_processes)
                    told.append(await admin.set_credential(note(tokens(server))))
                    server.answer = (400, str(server.refresh))
                    server.access.clear()
                    told += await say(chat, "hi")
                    assert len(server.asked) == 2
                    session_id = chat.session_id
                told.append(await client.session(session_id))
                told += [each async for each in admin.credentials(TENANT)]
                bad = pb.SetCredentialRequest(tenant_id=TENANT, name="k3y-of-acme!")
                bad.api_key = "k3y-of-acme\n"
                with pytest.raises(WarmlineError) as refused:
                    await admin.set_credential(bad)
        files = contents(data)
    assert len(secrets) == 7
    assert processes
    shown = " ".join(map(_fields, told)) + str(refused.value) + str(refused.value.fields)
    shown += processes + "".join(capfd.readouterr())
    assert not [each for each in secrets if each in shown]
    assert not [each for each in secrets for file in files if each.encode() in file]
    assert "max" in shown


def _processes() -> str:
    """The arguments and environments of this process's children."""
    return " ".join(str(shown) for _, shown in descendants("cmdline", "environ"))


async def test_what_is_stored_outlives_a_restart(
    server: AuthorizationServer, provider: Provider
) -> None:
    """And lets a service start that has nothing else to pay with."""
    with data_directory() as data:
        async with service_in(data, **settings(provider, server)) as service:
            async with connect(f"127.0.0.1:{service.port}") as client:
                await client.admin.set_credential(tokens(server))
                async with client.chat(config=named("max")) as chat:
                    await say(chat, "hi")
                    session_id = chat.session_id
        others = settings(provider, server, stored_credentials=False)
        async with service_in(data, **others) as service:
            async with connect(f"127.0.0.1:{service.port}") as client:
                async with client.chat(session_id=session_id) as chat:
                    await client.admin.delete_credential(TENANT, "max")
                    events = await say(chat, "hi")
                    assert kinds(events)[-2:] == ["credential_required", "turn_failed"]
                    assert events[-2].credential_required.name == "max"
                    assert failure(events).reason == "CREDENTIAL_NOT_FOUND"
                    await client.admin.set_credential(tokens(server))
                    assert (await say(chat, "hi"))[-1].HasField("turn_completed")


async def test_two_services_renew_one_tenants_token_once(
    server: AuthorizationServer, provider: Provider, tmp_path: Path, postgres_url: str
) -> None:
    """On one database, where sessions of both come with one that has expired, or is refused."""
    shared: dict[str, Any] = {
        "store": {"url": postgres_url, "blob_url": f"file://{tmp_path}/blobs"},
        "vault": {"key_file": tmp_path / "vault.key"},
    }
    async with AsyncExitStack() as stack:
        clients = []
        for _ in range(2):
            data = stack.enter_context(data_directory())
            made = service_in(data, **settings(provider, server), **shared)
            service = await stack.enter_async_context(made)
            clients.append(await stack.enter_async_context(client_of(service)))

        async def chats(name: str) -> list[Conversation]:
            wanted = (each.chat(config=named(name)) for each in clients)
            return [await stack.enter_async_context(each) for each in wanted]

        await clients[0].admin.set_credential(tokens(server, left=0))
        server.open.clear()
        turns = [asyncio.create_task(say(chat, "hi")) for chat in await chats("max")]
        await asyncio.wait_for(server.came.wait(), 20)
        assert not any(turn.done() for turn in turns)
        server.open.set()
        await _all_done(turns)
        assert len(server.asked) == 1
        # Another one: what was renewed a moment ago is not renewed again.
        request = tokens(server)
        request.name = "other"
        await clients[1].admin.set_credential(request)
        talking = await chats("other")
        await _all_done(say(chat, "hi") for chat in talking)
        server.access.clear()
        await _all_done(say(chat, "again") for chat in talking)
        assert len(server.asked) == 2


async def _all_done(turns: Iterable[Awaitable[list[events_pb2.Event]]]) -> None:
    for events in await asyncio.gather(*turns):
        assert events[-1].HasField("turn_completed"), events[-1]
