"""Events are safe in the log before they have rows, however the service ends."""

import asyncio
import errno
import os
import shutil
import struct
import threading
import time
import uuid
import zlib
from collections.abc import AsyncIterator
from dataclasses import replace
from functools import partial
from pathlib import Path

import msgspec
import pytest
from running import until
from stores import TENANT, event, forbid_writing, hold, opened, row, session, tell_log, writer_of
from warmline_service.errors import Reason, WarmlineError
from warmline_service.sessions import Session, SessionConfig
from warmline_service.sessions.events import (
    StopReason,
    TextDelta,
    TurnCompleted,
    Usage,
    encode_body,
)
from warmline_service.store import EventRow, Store, StoreMisconfigured, TurnRow, TurnState
from warmline_service.store._event_log import EventLog
from warmline_service.store._sqlite_writer import SqliteWriter

DONE = TurnCompleted(StopReason.END_TURN, "", Usage(), None)
_TIMEOUT = 20.0


def delta(of: Session, text: str, turn_id: str = "") -> EventRow:
    """The row of a session's next event."""
    made = event(of, TextDelta(text, 0), turn_id)
    body = encode_body(made.body)
    return EventRow(
        of.id, made.seq, made.epoch, turn_id, "text_delta", made.time, "", len(body), False, body
    )


def killed(root: Path) -> Path:
    """What a kill at this moment would leave."""
    left = root.with_name(f"killed-{uuid.uuid4()}")
    shutil.copytree(root, left)
    return left


def rowless(store: Store) -> int:
    """How many events have no row yet."""
    return store._events._fresh.count


@pytest.fixture
async def log(tmp_path: Path) -> AsyncIterator[EventLog]:
    """An empty log."""
    made = EventLog(tmp_path / "events")
    yield made
    await asyncio.to_thread(made.shut_down)


def rows(*texts: str) -> list[EventRow]:
    """Rows of no session that there is."""
    return [
        EventRow("s", seq, 1, "t", "text_delta", 1.5, "", len(text), False, text.encode())
        for seq, text in enumerate(texts, 1)
    ]


async def test_what_was_logged_is_there_after_a_kill(tmp_path: Path) -> None:
    """It gets its rows when the service comes back, and the log is empty then."""
    root = tmp_path / "data"
    root.mkdir()
    async with opened("", root, "one") as store:
        of, other = await session(store), await session(store)
        logged = [delta(of, str(n)) for n in range(5)]
        await store.log([*logged[:3], delta(other, "x")])
        await store.log(logged[3:])
        left = killed(root)
    async with opened("", left, "one") as store:
        assert rowless(store) == 0
        assert await store.events(of.id, 0, 100) == logged
        assert [each.body for each in await store.events(other.id, 0, 100)] == [
            encode_body(TextDelta("x", 0))
        ]
        assert list((left / "events").iterdir()) == []


async def test_what_has_no_row_yet_is_read_all_the_same(tmp_path: Path) -> None:
    """By pages, by turns, by position; before, while and after it gets its row."""
    async with opened("", tmp_path) as store:
        of = await session(store)
        first = [delta(of, str(n), "a") for n in range(3)]
        await store.append(first, [], {of.id: of.token})
        second = [delta(of, str(n), "b") for n in range(3)]
        await store.log(second)
        assert rowless(store) == 3
        for settled in (False, True):
            if settled:
                await until(lambda: not rowless(store))
            page = await store.events(of.id, 0, 100)
            assert page == ([*first, *second] if settled else first)
            assert await store.events(of.id, 3, 2) == second[:2]
            assert await store.events(of.id, 5, 100) == second[2:]
            assert await store.events(of.id, 6, 100) == []
            assert await store.events(of.id, 0, 100, turn_id="b") == second
            assert await store.events(of.id, 3, 100, turn_id="a") == []
            assert await store.position(of.id) == (of.epoch, 6)
            assert await store.first_seq(of.id) == 1


async def test_a_session_whose_first_events_are_logged_begins_with_them(tmp_path: Path) -> None:
    """Nothing of it has a row."""
    async with opened("", tmp_path) as store:
        of = await session(store)
        await store.log([delta(of, "a"), delta(of, "b")])
        assert (await store.first_seq(of.id), (await store.position(of.id))[1]) == (1, 2)


async def test_what_goes_to_the_database_takes_with_it_what_was_logged_before(
    tmp_path: Path,
) -> None:
    """So the rows of a session have no gaps, and a turn's end counts all of its events."""
    async with opened("", tmp_path) as store:
        of = await session(store)
        turn = TurnRow(str(uuid.uuid4()), of.id, 1, "", TurnState.RUNNING, 1, 0, time.time())
        await store.accept(turn, "", None, of.token)
        logged = [delta(of, "a", turn.id), delta(of, "b", turn.id)]
        await store.log(logged)
        end = event(of, DONE, turn.id)
        body = encode_body(DONE)
        last = EventRow(
            of.id, end.seq, end.epoch, turn.id, "turn_completed", 1.5, "", len(body), False, body
        )
        assert await store.append([last], [], {of.id: of.token}) == set()
        assert rowless(store) == 0
        assert await store.events(of.id, 0, 100) == [*logged, last]
        found = await store.turn(of.id, turn.id)
        assert found is not None
        assert found.bytes == sum(each.size for each in [*logged, last])


async def test_a_new_writer_goes_on_behind_what_is_in_the_log(tmp_path: Path) -> None:
    """Whether it has a row yet or not, and also where it gets one meanwhile."""
    async with opened("", tmp_path) as store:
        of, log, writer = await session(store), store._events._log, writer_of(store)
        assert log is not None
        await store.log([delta(of, "a"), delta(of, "b")])
        assert rowless(store)
        assert (await store.take(TENANT, of.id)).position == (of.epoch, 2)
        await until(lambda: not rowless(store))
        assert (await store.take(TENANT, of.id)).position == (of.epoch, 2)
        for settled_first in (True, False):
            of = replace(of, token=(await store.take(TENANT, of.id)).token)
            await store.log([delta(of, "more")])
            gate = hold(writer)
            works = [store._events._settle(log), store.take(TENANT, of.id)]
            tasks = []
            for work in works if settled_first else reversed(works):
                tasks.append(asyncio.create_task(work))
                await until(partial(_wait, writer, len(tasks)))
            gate.set()
            done = await asyncio.gather(*tasks)
            (taken,) = (each for each in done if each is not None)
            assert taken.position == (of.epoch, of.seq)


def _wait(writer: SqliteWriter, number: int) -> bool:
    return len(writer._waiting) == number


async def test_a_lost_lease_takes_nothing_from_the_log(tmp_path: Path) -> None:
    """What was logged under it stays; what comes later is refused."""
    async with opened("", tmp_path) as store:
        of = await session(store)
        logged = [delta(of, "kept")]
        await store.log(logged)
        assert store.has_lease(of.id, of.token)
        await store.take(TENANT, of.id)
        assert not store.has_lease(of.id, of.token)
        assert await store.append([delta(of, "late")], [], {of.id: of.token}) == {of.id}
        await until(lambda: not rowless(store))
        assert await store.events(of.id, 0, 100) == logged


async def test_of_a_deleted_session_nothing_comes_back(tmp_path: Path) -> None:
    """Neither from the memory nor from a log that is read again; the others' events do."""
    root = tmp_path / "data"
    root.mkdir()
    async with opened("", root, "one") as store:
        made = row()
        await store.create(made, None, 10)
        gone = Session(TENANT, made.id, SessionConfig(), 1, 1, 0, 0, 0, "")
        kept = await session(store)
        mine = [delta(kept, "mine")]
        await store.log([delta(gone, "theirs"), *mine])
        await store.delete(made)
        left = killed(root)
        assert await store.events(gone.id, 0, 100) == []
        await until(lambda: not rowless(store))
    async with opened("", left, "one") as store:
        assert await store.events(gone.id, 0, 100) == []
        assert await store.events(kept.id, 0, 100) == mine


async def test_what_went_out_of_keeping_does_not_come_back(tmp_path: Path) -> None:
    """A log that is read again has it no more."""
    root = tmp_path / "data"
    root.mkdir()
    async with opened("", root, "one") as store:
        made = row()
        await store.create(made, None, 10)
        token = (await store.take(TENANT, made.id)).token
        of = Session(TENANT, made.id, SessionConfig(), token, token, 0, 0, 0, "")
        await store.log([delta(of, "old")])
        await store.expire(made, 1)
        left = killed(root)
    async with opened("", left, "one") as store:
        assert await store.events(of.id, 0, 100) == []


async def test_while_the_database_takes_nothing_events_stay_in_the_log(tmp_path: Path) -> None:
    """They are read from memory, and get their rows when it is over."""
    async with opened("", tmp_path) as store:
        of = await session(store)
        logged = [delta(of, "a")]
        await asyncio.to_thread(forbid_writing, store, forbid=True)
        await store.log(logged)
        with pytest.raises(WarmlineError):
            await store.expire(row(), 1)  # Which needs all of them settled.
        assert await store.events(of.id, 0, 100) == logged
        await asyncio.to_thread(forbid_writing, store, forbid=False)
        await until(lambda: not rowless(store))
        assert await store.events(of.id, 0, 100) == logged


async def test_a_log_that_fails_is_not_used_for_a_while(tmp_path: Path) -> None:
    """By name; and nothing of what failed is told as stored."""
    async with opened("", tmp_path) as store:
        of = await session(store)
        await asyncio.to_thread(tell_log, store, usable=False)
        with pytest.raises(WarmlineError) as caught:
            await store.log([delta(of, "a")])
        assert caught.value.reason is Reason.STORAGE_UNAVAILABLE
        assert str(tmp_path) not in str(caught.value)
        assert not store.has_log
        assert await store.events(of.id, 0, 100) == []
        await asyncio.to_thread(tell_log, store, usable=True)


async def test_a_file_cut_anywhere_has_what_is_whole(log: EventLog, tmp_path: Path) -> None:
    """The machine may stop in the middle of a write."""
    await log.append(rows("a"), _TIMEOUT)
    (file,) = await log.close_file(_TIMEOUT)
    one = file.stat().st_size
    await log.append(rows("b", "c"), _TIMEOUT)
    _, second = await log.close_file(_TIMEOUT)
    data = file.read_bytes() + second.read_bytes()
    cut = tmp_path / "cut"
    for size in range(len(data) + 1):
        cut.write_bytes(data[:size])
        whole = [
            *(rows("a") if size >= one else []),
            *(rows("b", "c") if size == len(data) else []),
        ]
        assert await log.read(cut, _TIMEOUT) == whole, size


async def test_nothing_is_read_behind_what_is_damaged(log: EventLog) -> None:
    """A byte that is another one is no record's, whichever it is."""
    await log.append(rows("a"), _TIMEOUT)
    await log.append(rows("b"), _TIMEOUT)
    (file,) = await log.close_file(_TIMEOUT)
    data = file.read_bytes()
    for at in range(len(data) // 2):
        file.write_bytes(data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :])
        assert await log.read(file, _TIMEOUT) == [], at


async def test_a_write_that_fails_half_way_leaves_no_trace(
    log: EventLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A full disk takes the first bytes of a record; what was there and what comes later is read."""
    await log.append(rows("before"), _TIMEOUT)
    real = os.write
    left = [5]

    def full(file: int, data: bytes) -> int:
        if not left:
            raise OSError(errno.ENOSPC, "No space left on device")
        return real(file, data[: left.pop()])

    with monkeypatch.context() as patch:
        patch.setattr(os, "write", full)
        with pytest.raises(WarmlineError, match="disk of the store is full"):
            await log.append(rows("lost"), _TIMEOUT)
    await log.append(rows("after"), _TIMEOUT)
    files = await log.close_file(_TIMEOUT)
    assert [await log.read(file, _TIMEOUT) for file in files] == [rows("before"), rows("after")]


async def test_a_new_file_never_takes_the_name_of_one_that_is_there(tmp_path: Path) -> None:
    """In the order of their numbers they are in that of their events."""
    for text in "abc":
        log = EventLog(tmp_path / "events")
        await log.append(rows(text), _TIMEOUT)
        await asyncio.to_thread(log.shut_down)
    log = EventLog(tmp_path / "events")
    files = await log.close_file(_TIMEOUT)
    assert [await log.read(file, _TIMEOUT) for file in files] == [rows("a"), rows("b"), rows("c")]
    assert {oct(file.stat().st_mode & 0o777) for file in files} == {"0o600"}
    await log.remove(files, _TIMEOUT)
    assert await log.close_file(_TIMEOUT) == []
    await asyncio.to_thread(log.shut_down)


async def test_a_log_of_another_version_is_refused_by_name(tmp_path: Path) -> None:
    """Whole, but not understood: it is not for us to drop it."""
    folder = tmp_path / "events"
    folder.mkdir()
    body = msgspec.msgpack.encode({"what": "is this"})
    (folder / "1.log").write_bytes(struct.pack(">II", len(body), zlib.crc32(body)) + body)
    with pytest.raises(StoreMisconfigured, match="another version"):
        async with opened("", tmp_path):
            pass
    assert (folder / "1.log").exists()


async def test_what_cannot_be_stored_is_not_logged(log: EventLog) -> None:
    """A text that no database takes is refused, as there."""
    bad = [msgspec.structs.replace(rows("a")[0], parent="\ud800")]
    with pytest.raises(UnicodeEncodeError):
        await log.append(bad, _TIMEOUT)
    assert await log.close_file(_TIMEOUT) == []


async def test_a_write_that_hangs_is_not_waited_for_without_end(log: EventLog) -> None:
    """It has a deadline."""
    gate = threading.Event()
    log._thread.submit(gate.wait, 20)
    with pytest.raises(WarmlineError) as caught:
        await log.append(rows("a"), 0.05)
    gate.set()
    assert caught.value.reason is Reason.STORAGE_UNAVAILABLE
