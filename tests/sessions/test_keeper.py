"""What is past its time goes, and who cannot be heard of any more stops writing in time."""

import asyncio
import itertools
import time
import uuid
from pathlib import Path

import pytest
from running import until
from stores import TENANT, event, forbid_writing, opened, row, session
from warmline_service.config import RetentionSettings, StoreSettings
from warmline_service.sessions import Keeper, Session
from warmline_service.sessions.events import (
    StopReason,
    TextDelta,
    TurnCompleted,
    Usage,
    encode_body,
    kind_of,
)
from warmline_service.store import (
    EventRow,
    SessionRow,
    Store,
    TurnRow,
    TurnState,
    blob_key,
    event_name,
)

DAY = 24 * 3600.0


def keeper(store: Store, ttl: float = 6.0, **retention: float) -> tuple[Keeper, list[str]]:
    """A keeper, and what it has done: `fenced`, `recovered`, and the ids of removed sessions."""
    done: list[str] = []

    async def recover() -> int:
        done.append("recovered")
        return 0

    async def remove(gone: SessionRow) -> None:
        done.append(gone.id)
        await store.delete(gone)

    settings = StoreSettings(lease_ttl=ttl)
    keep = RetentionSettings(**retention)
    return Keeper(
        store, settings, keep, recover=recover, fence=lambda: done.append("fenced"), remove=remove
    ), done


async def turn(store: Store, of: Session, text: str, ended_at: float) -> None:
    """A turn that has ended at a moment; a long text is in a blob."""
    of.turns += 1
    made = TurnRow(
        str(uuid.uuid4()), of.id, of.turns, "", TurnState.QUEUED, of.seq + 1, 0, ended_at
    )
    await store.accept(made, "", None, of.token)
    rows = []
    for body in (TextDelta(text, 0), TurnCompleted(StopReason.END_TURN, "", Usage(), None)):
        seq, data = event(of, body).seq, encode_body(body)
        spilled = len(data) > 1000
        if spilled:
            await store.blobs.put(blob_key(TENANT, of.id, event_name(seq, made.id)), data)
        kept = b"" if spilled else data
        rows.append(
            EventRow(of.id, seq, 1, made.id, kind_of(body), ended_at, "", len(data), spilled, kept)
        )
    await store.append(rows, [], {of.id: of.token})


async def kept(store: Store, of: Session) -> list[int]:
    return [each.seq for each in await store.events(of.id, 0, 100)]


async def test_events_past_their_time_go_with_their_blobs(store: Store, tmp_path: Path) -> None:
    """Whole turns; those that ended later stay."""
    now, of = time.time(), await session(store)
    await turn(store, of, "x" * 2000, now - 31 * DAY)
    await turn(store, of, "recent", now - DAY)
    keep, _ = keeper(store, events_days=30)
    await keep.retain(now)
    assert await kept(store, of) == [3, 4]
    assert list((tmp_path / "blobs").rglob("event-*")) == []
    await keep.retain(now)
    assert await kept(store, of) == [3, 4]


async def test_a_tenant_that_keeps_too_much_loses_its_oldest_turns(store: Store) -> None:
    """As many as are too many, over all of its sessions; another tenant's stay."""
    now = time.time()
    sessions = [await session(store), await session(store)]
    for index in range(6):
        await turn(store, sessions[index % 2], "y" * 500, now - 100 + index)
    theirs = await session(store, "other")
    await store.append([], [], {theirs.id: theirs.token})
    keep, _ = keeper(store, tenant_bytes=2000)
    await keep.retain(now)
    assert [await kept(store, of) for of in sessions] == [[5, 6], [3, 4, 5, 6]]


async def test_unused_sessions_are_removed(store: Store) -> None:
    """And only those."""
    now = time.time()
    old, fresh = row(updated_at=now - 366 * DAY), row(updated_at=now)
    for each in (old, fresh):
        await store.create(each, None, 10)
    keep, done = keeper(store, sessions_days=365)
    await keep.retain(now)
    assert done == [old.id]


async def test_a_node_that_renews_keeps_its_place(store: Store) -> None:
    """Others find it alive for as long as it runs; each time it looks for what was left behind."""
    keep, done = keeper(store, ttl=0.3)
    await keep.start()
    await until(lambda: done.count("recovered") >= 4)
    await keep.aclose()
    assert "fenced" not in done


async def test_a_node_that_cannot_renew_stops_writing_before_others_begin(tmp_path: Path) -> None:
    """Once, before its time is over."""
    async with opened("", tmp_path) as store:
        keep, done = keeper(store, ttl=0.9)
        await keep.start()
        await asyncio.to_thread(forbid_writing, store, forbid=True)
        begun = asyncio.get_running_loop().time()
        await until(lambda: "fenced" in done)
        assert asyncio.get_running_loop().time() - begun < 1.3
        await keep.aclose()
        await asyncio.to_thread(forbid_writing, store, forbid=False)
        assert done.count("fenced") == 1


@pytest.mark.virtual_time
@pytest.mark.parametrize("round_of", ["renew", "recover", "forget_keys"])
async def test_a_fault_in_one_round_is_not_the_end_of_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, round_of: str
) -> None:
    """Whatever it is; a node that was not renewed, for whatever reason, stops writing in time."""
    async with opened("", tmp_path) as store:
        keep, done = keeper(store, ttl=6.0)
        await keep.start()
        whose, name = (keep, "_recover") if round_of == "recover" else (store, round_of)
        real, rounds, well = getattr(whose, name), itertools.count(1), asyncio.Event()

        async def twice_in_vain(*arguments: float) -> object:
            if next(rounds) <= 2:
                raise RuntimeError("a fault")
            well.set()
            return await real(*arguments)

        monkeypatch.setattr(whose, name, twice_in_vain)
        async with asyncio.timeout(3600):
            await well.wait()
        await keep.aclose()
        assert done.count("fenced") == (round_of == "renew")


async def test_a_session_that_cannot_be_removed_keeps_no_other(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It stays until it can be."""
    now = time.time()
    stuck, goes = row(updated_at=now - 367 * DAY), row(updated_at=now - 366 * DAY)
    for each in (stuck, goes):
        await store.create(each, None, 10)
    keep, done = keeper(store, sessions_days=365)
    remove = keep._remove

    async def broken(gone: SessionRow) -> None:
        if gone.id == stuck.id:
            raise RuntimeError("a fault")
        await remove(gone)

    monkeypatch.setattr(keep, "_remove", broken)
    await keep.retain(now)
    assert done == [goes.id]
    monkeypatch.undo()
    await keep.retain(now)
    assert done == [goes.id, stuck.id]
