"""A service whose processes are sandboxed, which the tests of a module share."""

import asyncio
from collections.abc import AsyncIterator, Iterator

import pytest
from conversing import Model
from inside import assert_healthy, sandboxed, tenant
from parking import client_of, say, start_of
from shared import ServiceThread, shared_service
from warmline.v1 import events_pb2
from warmline_client import Client, Conversation


@pytest.fixture(scope="module")
def canary() -> Iterator[str]:
    """A secret in the service's environment."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("WARMLINE_TEST_CANARY", "canary-in-environment")
        yield "canary-in-environment"


@pytest.fixture(scope="module")
def limits() -> dict[str, int]:
    """Settings of the sandbox that a module wants."""
    return {}


@pytest.fixture(scope="module")
def model() -> Model:
    """The model of the module's service."""
    return Model()


@pytest.fixture(scope="module")
def thread(canary: str, limits: dict[str, int], model: Model) -> Iterator[ServiceThread]:
    """A service at the default level."""
    del canary
    with shared_service(model, **sandboxed(**limits)) as thread:
        yield thread


@pytest.fixture(scope="module")
def known() -> dict[str, str]:
    """The sessions of a module's tenants: each keeps its process from test to test."""
    return {}


@pytest.fixture
async def client(thread: ServiceThread) -> AsyncIterator[Client]:
    """A client of the module's service."""
    async with client_of(thread.service) as client:
        yield client


@pytest.fixture
async def victim(client: Client, known: dict[str, str]) -> AsyncIterator[Conversation]:
    """Another tenant's session: whatever was done in the test, it goes on in its own process."""
    async with tenant(client, known, "victim") as chat:
        yield chat
        events = await say(chat, "::say still here")
        assert start_of(events).start == events_pb2.START_KIND_HOT


@pytest.fixture
async def attacker(
    client: Client, known: dict[str, str], victim: Conversation
) -> AsyncIterator[Conversation]:
    """The session that means harm."""
    del victim
    async with tenant(client, known, "attacker") as chat:
        yield chat


@pytest.fixture(scope="module", autouse=True)
def serves_others(thread: ServiceThread) -> Iterator[None]:
    """When all was done, a session that begins still gets a process and its answer."""
    yield

    async def begin() -> None:
        async with client_of(thread.service) as client, client.chat() as chat:
            await assert_healthy(chat)

    asyncio.run(begin())
