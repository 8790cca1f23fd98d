"""An egress with one bound slot, and what stands behind it."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from egress.client import ModelClient, connected
from warmline_service.egress import Access, Egress, LoopbackModel
from warmline_service.worker import Slot


@pytest.fixture
def slot(tmp_path: Path) -> Slot:
    """A slot whose directory exists."""
    root = tmp_path / "s1"
    root.mkdir(0o700)
    return Slot("s1", root)


@pytest.fixture
def model() -> LoopbackModel:
    """The loopback model, which keeps what it is sent."""
    return LoopbackModel(record=True)


@pytest.fixture
async def egress(tasks_end: None, model: LoopbackModel) -> AsyncIterator[Egress]:
    """An egress in front of the loopback model."""
    egress = Egress(model)
    await egress.start()
    yield egress
    await egress.aclose()


@pytest.fixture
async def client(egress: Egress, slot: Slot) -> AsyncIterator[ModelClient]:
    """A client of the slot's socket; the slot is bound."""
    await egress.open_endpoint(slot)
    egress.bind(slot.id, Access("tenant", "session"))
    async with connected(slot.sock) as client:
        yield client
