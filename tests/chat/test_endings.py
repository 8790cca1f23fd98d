"""How a turn ends that nobody can finish."""

import time

import pytest
from stores import session
from warmline_service.chat._endings import abandoned
from warmline_service.store import Store, TurnRow, TurnState


@pytest.mark.parametrize("waits", [True, False])
async def test_an_abandoned_turn_says_whether_it_may_have_run(store: Store, waits: bool) -> None:
    """Of one that waited it is known from the moment at which it begins."""
    of = await session(store)
    state = TurnState.QUEUED if waits else TurnState.RUNNING
    await store.accept(TurnRow("t", of.id, 1, "k", state, 1, 0, time.time()), "", None, of.token)
    (row,) = await store.unfinished(of.id)
    assert abandoned(row).error.metadata == {"started": "false" if waits else "true"}
    await store.begin("t")
    (row,) = await store.unfinished(of.id)
    assert abandoned(row).error.metadata == {"started": "true"}
