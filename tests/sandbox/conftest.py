"""A service whose processes are sandboxed, which the tests of a module share."""

from collections.abc import AsyncIterator, Iterator

import pytest
from conversing import Model
from inside import assert_healthy, sandboxed
from parking import client_of
from shared import ServiceThread, shared_service
from warmline_client import Client


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
def thread(canary: str, limits: dict[str, int]) -> Iterator[ServiceThread]:
    """A service at the default level."""
    del canary
    with shared_service(Model(), **sandboxed(**limits)) as thread:
        yield thread


@pytest.fixture
async def client(thread: ServiceThread) -> AsyncIterator[Client]:
    """A client of it; after the test another session still gets its answer."""
    async with client_of(thread.service) as client:
        yield client
        await assert_healthy(client, thread.service)
