"""Callers who are known by the credential that pays for them: with the real CLI."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

import grpc
import pytest
from kept import contents
from key_provider import Provider
from parking import say
from running import data_directory, service_in, until
from tenancies import tenant
from warmline.v1 import chat_service_pb2 as chat_pb
from warmline.v1 import model_service_pb2 as model_pb
from warmline.v1 import model_service_pb2_grpc as model_grpc
from warmline.v1 import session_config_pb2 as config_pb
from warmline_client import Client, WarmlineError, connect
from warmline_service.server import Service

pytestmark = pytest.mark.real_cli

MINE, YOURS, TOKEN = (
    "sk-ant-api03-m1ne-m1ne",
    "sk-ant-api03-y0urs-y0urs",
    "sk-ant-oat01-t0ken-t0ken",
)
LENT = "sk-ant-api03-l3nt-l3nt"
KNOWN = (MINE, YOURS, TOKEN, LENT)


@pytest.fixture
async def provider() -> AsyncIterator[Provider]:
    """It knows these."""
    made = Provider(KNOWN)
    async with made.serving():
        yield made


@asynccontextmanager
async def serving(data: Path, provider: Provider, **changes: Any) -> AsyncIterator[str]:
    """The address of a service that has no credential of its own."""
    async with serving_all(data, provider, changes) as (service, _):
        yield f"127.0.0.1:{service.port}"


@asynccontextmanager
async def serving_all(
    data: Path, provider: Provider, changes: Mapping[str, Any], **settings: Any
) -> AsyncIterator[tuple[Service, str]]:
    """The service itself, and the key of a tenant that has one."""
    provided = {"kind": "anthropic", "base_url": provider.url, "caller_credentials": True}
    provided |= {"caller_tenants": True, **changes}
    acme, key = tenant("acme")
    settings.setdefault("pool", {"min_spares": 0, "max_spares": 0})
    async with service_in(data, tenants=[acme], provider=provided, **settings) as service:
        yield service, key


def pays(shown: str) -> config_pb.SessionConfig:
    """Who has a key brings a credential all the same: the service has none."""
    own = None if shown in KNOWN else config_pb.Credential(api_key=LENT)
    return config_pb.SessionConfig(credential=own)


async def first_turn(client: Client) -> str:
    """One turn of a new session; its id."""
    async with client.chat() as chat:
        events = await say(chat, "hi")
        assert events[-1].HasField("turn_completed"), events[-1]
        return chat.session_id


async def test_a_credential_is_who_one_is_and_pays(
    provider: Provider, capsys: pytest.CaptureFixture[str]
) -> None:
    """The same one finds its sessions again, also after a restart; another does not; it is kept nowhere."""
    with data_directory() as data:
        async with serving(data, provider) as address:
            async with connect(address, api_key=MINE) as me, connect(address, api_key=YOURS) as you:
                mine, yours = await first_turn(me), await first_turn(you)
                assert [each.id async for each in me.sessions()] == [mine]
                with pytest.raises(WarmlineError, match="SESSION_NOT_FOUND"):
                    await me.session(yours)
                with pytest.raises(WarmlineError, match="POLICY_DENIED"):
                    await me.admin.pool()
        assert provider.seen == [MINE, YOURS]
        async with serving(data, provider) as address:
            async with connect(address, api_key=MINE) as me, me.chat(session_id=mine) as chat:
                await say(chat, "again")
        assert provider.seen == [MINE, YOURS, MINE]
        kept = contents(data)
        assert not any(each.encode() in data for each in (MINE, YOURS) for data in kept)
    logged = capsys.readouterr()
    assert "own-" in logged.out
    assert not any(each in logged.out + logged.err for each in (MINE, YOURS))


async def test_whatever_begins_a_session_pays_so(provider: Provider) -> None:
    """Asking, forking as it was or set up anew, importing what another had."""
    with data_directory() as data:
        async with serving(data, provider) as address, connect(address, api_key=TOKEN) as client:
            events = [event async for event in client.ask("hi")]
            assert events[-1].HasField("turn_completed")
            original = chat_pb.ForkFrom(session_id=events[0].session_id)
            await _says(client, fork=original)
            await _says(client, fork=original, config=config_pb.SessionConfig(model="haiku"))
            assert provider.seen == [f"Bearer {TOKEN}"] * 3
            copy = await client.import_(client.export(original.session_id))
            assert copy.config.credential.WhichOneof("kind") == "oauth_token"


async def _says(client: Client, **session: Any) -> None:
    async with client.chat(**session) as chat:
        assert (await say(chat, "hi"))[-1].HasField("turn_completed")


async def test_one_that_the_provider_refuses_is_said_so(provider: Provider) -> None:
    """By the turn; it is not in what is said."""
    unknown = "sk-ant-api03-n0body-n0body"
    with data_directory() as data:
        async with serving(data, provider) as address, connect(address, api_key=unknown) as client:
            async with client.chat() as chat:
                events = await say(chat, "hi")
    assert WarmlineError(events[-1].turn_failed.status).reason == "CREDENTIAL_REJECTED"
    assert unknown not in str(events)


async def test_all_of_them_together_have_so_many_streams(provider: Provider) -> None:
    """Anybody can be as many of them as he likes; who has a key is not kept out by them."""
    with data_directory() as data:
        limits = {"own_credential_streams": 2}
        async with (
            serving_all(data, provider, {}, limits=limits) as (service, key),
            AsyncExitStack() as stack,
        ):

            async def opens(shown: str, into: AsyncExitStack) -> None:
                """Until the streams of this stack end."""
                client = connect(f"127.0.0.1:{service.port}", api_key=shown)
                chat = (await into.enter_async_context(client)).chat(config=pays(shown))
                await into.enter_async_context(chat)

            await opens(YOURS, stack)
            async with AsyncExitStack() as mine:
                await opens(MINE, mine)
                with pytest.raises(WarmlineError, match="QUOTA_EXCEEDED") as caught:
                    await opens(TOKEN, stack)
                assert caught.value.metadata["quota"] == "own_credential_streams"
                await opens(key, stack)
            await opens(TOKEN, stack)


async def test_all_of_them_together_have_one_turn_among_those_who_wait(provider: Provider) -> None:
    """Of two that wait for the only process and one who has a key, that one is second, and not last."""
    with data_directory() as data:
        pool = {"max_processes": 1, "min_spares": 0, "max_spares": 0}
        async with (
            serving_all(data, provider, {}, pool=pool) as (service, key),
            AsyncExitStack() as stack,
        ):
            chats = []
            for shown in (MINE, YOURS, TOKEN, key):
                client = await stack.enter_async_context(
                    connect(f"127.0.0.1:{service.port}", api_key=shown)
                )
                chats.append(await stack.enter_async_context(client.chat(config=pays(shown))))
            await chats[0].send("::hang")
            await asyncio.wait_for(provider.asked.wait(), 60)
            for number, chat in enumerate(chats[1:], 1):
                await chat.send("hi")
                await until(partial(_wait, service, number))
            await chats[0].interrupt()
            await until(lambda: len(provider.seen) == 4, 90)
    assert provider.seen == [MINE, YOURS, LENT, f"Bearer {TOKEN}"]


def _wait(service: Service, number: int) -> bool:
    return service.pool.stats().waiting == number


async def test_it_may_come_by_the_providers_own_header(provider: Provider) -> None:
    """As SDKs send it; anything else in it is no credential."""
    with data_directory() as data:
        async with serving(data, provider) as address:
            async with grpc.aio.insecure_channel(address) as channel:
                stub: Any = model_grpc.ModelServiceStub(channel)
                request = model_pb.ListModelsRequest()
                assert (await stub.ListModels(request, metadata=(("x-api-key", MINE),))).models
                for bad in ("sk-ant-", "sk-ant-a b c d e f g h", "sk-other-0123456789"):
                    with pytest.raises(grpc.aio.AioRpcError) as caught:
                        await stub.ListModels(request, metadata=(("x-api-key", bad),))
                    assert caught.value.code() is grpc.StatusCode.UNAUTHENTICATED
    assert provider.seen == []


async def test_the_operator_has_to_allow_it(provider: Provider) -> None:
    """Otherwise a credential is no key."""
    with data_directory() as data:
        async with serving(data, provider, caller_tenants=False) as address:
            async with connect(address, api_key=MINE) as client:
                with pytest.raises(WarmlineError, match="KEY_INVALID"):
                    await client.models()
