"""Groups of events that SQLite stores by one statement, which is a transaction of its own."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import sqlalchemy as sa
from stores import event, opened, session
from warmline_service.sessions import Session
from warmline_service.sessions.events import Body as AnyBody
from warmline_service.sessions.events import (
    Latency,
    Start,
    TextDelta,
    TurnStarted,
    encode_body,
    kind_of,
)
from warmline_service.store import EventRow, Store
from warmline_service.store._database import raw


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[Store]:
    """An empty SQLite store."""
    async with opened("", tmp_path) as made:
        yield made


def stored(of: Session, body: AnyBody) -> EventRow:
    """The row of a session's next event."""
    made, data = event(of, body), encode_body(body)
    return EventRow(
        of.id, made.seq, made.epoch, "", kind_of(body), made.time, "", len(data), False, data
    )


async def statements(store: Store, rows: list[EventRow], tokens: dict[str, int]) -> list[str]:
    """The first words of what SQLite is asked to do to store a group."""
    said: list[str] = []

    def trace(connection: sa.Connection) -> None:
        raw(connection).set_trace_callback(lambda text: said.append(text.split()[0]))

    def end(connection: sa.Connection) -> None:
        raw(connection).set_trace_callback(None)

    await store._database.write(trace, 10.0)
    said.clear()
    await store.append(rows, [], tokens)
    done = list(said)
    await store._database.write(end, 10.0)
    return done


async def test_what_is_said_in_the_middle_of_turns_takes_one_statement(store: Store) -> None:
    """Of all its sessions together, with the look at their leases."""
    one, other = await session(store), await session(store)
    rows = [stored(one, TextDelta("a", 0)), stored(other, TextDelta("b", 0))]
    assert await statements(store, rows, {one.id: one.token, other.id: other.token}) == ["INSERT"]
    assert await store.events(one.id, 0, 9) == rows[:1]
    assert await store.events(other.id, 0, 9) == rows[1:]


async def test_a_turn_that_begins_takes_a_transaction(store: Store) -> None:
    """Its row follows, or nothing is stored."""
    of = await session(store)
    rows = [stored(of, TurnStarted(Latency(Start.HOT)))]
    assert (await statements(store, rows, {of.id: of.token}))[0] == "BEGIN"
    assert await store.events(of.id, 0, 9) == rows


@pytest.mark.parametrize("stale", [0, 1])
async def test_a_lease_that_is_lost_takes_a_transaction(store: Store, stale: int) -> None:
    """Which says whose it is, and stores the others' events; the statement alone has stored nothing."""
    both = [await session(store), await session(store)]
    rows = [stored(of, TextDelta("a", 0)) for of in both]
    tokens = {of.id: of.token for of in both}
    await store.acquire(both[stale].id)
    assert (await statements(store, rows, tokens))[:2] == ["INSERT", "BEGIN"]
    assert await store.events(both[stale].id, 0, 9) == []
    assert await store.events(both[1 - stale].id, 0, 9) == [rows[1 - stale]]
