"""A service with the real CLI, and a shim in front of it; modules that need other ones have their own."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator

import pytest
from conversing import Model
from shared import ServiceThread, shared_service
from shimming import Shim, shim_to


@pytest.fixture(scope="module")
def model() -> Model:
    """What the service's model was asked."""
    return Model()


@pytest.fixture(scope="module")
def thread(model: Model) -> Iterator[ServiceThread]:
    """The module's service, with a spare for plain completions."""
    with shared_service(model, pool={"bare_spares": True}) as made:
        yield made


@pytest.fixture
async def shim(thread: ServiceThread) -> AsyncIterator[Shim]:
    """A shim in front of it."""
    async with shim_to(f"127.0.0.1:{thread.port}") as made:
        yield made
