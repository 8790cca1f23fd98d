"""Credentials that sessions bring: with the real CLI, and a provider that looks at what it is sent."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from kept import contents
from key_provider import Provider
from parking import say, start_of
from running import data_directory, kinds, running_client, service_in
from warmline.v1 import events_pb2 as pb
from warmline.v1 import session_config_pb2 as config_pb
from warmline_client import Client, WarmlineError, connect

pytestmark = pytest.mark.real_cli

OPERATORS, OURS, OTHER = "operators-key", "our-k3y", "other-k3y"


@pytest.fixture
async def provider() -> AsyncIterator[Provider]:
    """A provider that is up."""
    made = Provider((OPERATORS, OURS, OTHER))
    async with made.serving():
        yield made


def _settings(provider: Provider, **more: Any) -> dict[str, Any]:
    here = {"kind": "anthropic", "base_url": provider.url, "caller_credentials": True} | more
    return {"provider": here, "pool": {"min_spares": 0, "max_spares": 0}}


@pytest.fixture
async def client(provider: Provider) -> AsyncIterator[Client]:
    """A service that takes credentials and has one."""
    async with running_client(**_settings(provider, api_key=OPERATORS)) as client:
        yield client


def _own(key: str = OURS) -> config_pb.SessionConfig:
    return config_pb.SessionConfig(credential=config_pb.Credential(api_key=key))


async def test_a_session_pays_with_its_own(client: Client, provider: Provider) -> None:
    """And one that has none with the operator's; a token goes as one that bears."""
    async with client.chat(config=_own()) as chat:
        await say(chat, "hi")
    async with client.chat() as chat:
        await say(chat, "hi")
    token = config_pb.Credential(oauth_token=OTHER)
    async with client.chat(config=config_pb.SessionConfig(credential=token)) as chat:
        await say(chat, "hi")
    assert provider.seen == [OURS, OPERATORS, f"Bearer {OTHER}"]


async def test_a_refused_one_is_asked_for_again(client: Client, provider: Provider) -> None:
    """The turn fails by its name, and the session goes on with another, on the same process."""
    async with client.chat(config=_own("wr0ng")) as chat:
        events = await say(chat, "hi")
        assert kinds(events)[-2:] == ["credential_required", "turn_failed"]
        assert WarmlineError(events[-1].turn_failed.status).reason == "CREDENTIAL_REJECTED"
        assert "wr0ng" not in str(events)
        await chat.update(credential=config_pb.Credential(api_key=OURS))
        events = await say(chat, "again")
    assert events[-1].HasField("turn_completed")
    assert start_of(events).start == pb.START_KIND_HOT
    assert provider.seen == ["wr0ng", OURS]


async def test_a_running_turn_goes_on_with_another(client: Client, provider: Provider) -> None:
    """Its next request is the first that has it."""
    async with client.chat(config=_own()) as chat:
        turn = await chat.send('::delay 1s\n::tool Bash {"command": "true"}\n::say done')
        await asyncio.wait_for(provider.asked.wait(), 90)
        await chat.update(credential=config_pb.Credential(api_key=OTHER))
        async with asyncio.timeout(90):
            assert [event async for event in turn][-1].turn_completed.result == "done"
    assert provider.seen == [OURS, OTHER]


async def test_it_is_stored_sealed_and_holds_over_a_restart(provider: Provider) -> None:
    """Nothing that the service keeps or tells holds it."""
    with data_directory() as data:
        async with _client(data, provider) as client:
            async with client.chat(config=_own()) as chat:
                await say(chat, "hi")
                session_id = chat.session_id
            session = await client.session(session_id)
            assert session.config.credential.WhichOneof("kind") == "api_key"
            assert session.config.credential.api_key == ""
        kept = contents(data)
        assert not any(OURS.encode() in each for each in kept)
        async with _client(data, provider) as client, client.chat(session_id=session_id) as chat:
            await say(chat, "again")
        assert provider.seen == [OURS, OURS]


@asynccontextmanager
async def _client(data: Path, provider: Provider) -> AsyncIterator[Client]:
    async with (
        service_in(data, **_settings(provider)) as service,
        connect(f"127.0.0.1:{service.port}") as client,
    ):
        yield client


async def test_without_an_operators_each_session_needs_one(provider: Provider) -> None:
    """It is refused before anything is started."""
    async with running_client(**_settings(provider)) as client:
        with pytest.raises(WarmlineError) as refused:
            async with client.chat() as chat:
                await say(chat, "hi")
        assert refused.value.reason == "CREDENTIAL_REJECTED"
    assert provider.seen == []


async def test_the_operator_has_to_allow_it(provider: Provider) -> None:
    """A caller's key is not used unasked."""
    settings = _settings(provider, api_key=OPERATORS, caller_credentials=False)
    async with running_client(**settings) as client:
        with pytest.raises(WarmlineError) as refused:
            async with client.chat(config=_own()) as chat:
                await say(chat, "hi")
        assert refused.value.reason == "POLICY_DENIED"
