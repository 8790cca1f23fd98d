"""What the service does with its own memory."""

import gc
from collections.abc import Iterator

import pytest
from warmline_service.host import settle_memory


@pytest.fixture
def collector() -> Iterator[None]:
    """The garbage collector, put back as it was."""
    thresholds, frozen = gc.get_threshold(), gc.get_freeze_count()
    gc.unfreeze()
    yield
    if not frozen:
        gc.unfreeze()
    gc.set_threshold(*thresholds)


@pytest.mark.usefixtures("collector")
def test_the_collector_leaves_alone_what_stays_and_still_finds_cycles() -> None:
    """What is there when the service has started is searched no more; what comes later still is."""
    settle_memory()
    assert gc.get_freeze_count() > 10_000
    assert gc.isenabled()
    cycle: list[object] = []
    cycle.append(cycle)
    del cycle
    assert gc.collect() >= 1
