"""Whatever is done to the table is found, and where; nothing else is."""

import asyncio
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest
import sqlalchemy as sa
from auditing import CHAIN, detail, fill, log_of, rows_of, verdict_of
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from stores import opened
from warmline_service.audit import Chain, head_file, verify
from warmline_service.audit._chain import Entry
from warmline_service.store import Anchor, AuditPage, AuditRow, Store
from warmline_service.store._schema import audit_anchors, audit_events

COUNT = 12
_COLUMNS = AuditRow.__struct_fields__


async def _run(store: Store, work: Callable[[sa.Connection], Any]) -> Any:
    return await store._database.write(work, 10.0)


def _text(row: AuditRow, column: str) -> bytes:
    value = getattr(row, column)
    return value.encode() if isinstance(value, str) else repr(value).encode()


class Table:
    """Rows as the store would give them, in memory: what is done to them is done quickly."""

    def __init__(self, count: int) -> None:
        entries = [
            Entry(float(n), "acme", "key1", "test.done", "s", "t", "r", "ok", f'{{"n":{n}}}')
            for n in range(count)
        ]
        self.rows = CHAIN.link((0, "0" * 64), entries)
        self.head: Anchor | None = CHAIN.head(self.rows[-1])
        self.base: Anchor | None = None

    async def page(self, after: int, limit: int) -> AuditPage:
        """As the store's."""
        rows = sorted((row for row in self.rows if row.seq > after), key=lambda row: row.seq)
        lowest = min((row.seq for row in self.rows), default=None)
        return AuditPage(self.head, rows[:limit], self.base, lowest)

    def found(self, noted: Anchor | None = None) -> Any:
        """What verifying says."""
        return asyncio.run(verify(self, CHAIN, noted)).broken  # type: ignore[arg-type]  # as a store


def _with(row: AuditRow, column: str, value: Any) -> AuditRow:
    return msgspec.structs.replace(row, **{column: value})


@given(
    st.integers(1, COUNT),
    st.sampled_from(_COLUMNS),
    st.integers(0, 10_000),
    st.integers(1, 255),
)
def test_a_byte_that_was_flipped_is_found(seq: int, column: str, at: int, mask: int) -> None:
    """In any column of any row; the row is named, or the place where its number is missing."""
    table = Table(COUNT)
    row = table.rows[seq - 1]
    if column in ("seq", "time"):
        number = getattr(row, column)
        changed: Any = int(number) ^ mask if column == "seq" else float(int(number) ^ mask)
    else:
        data = bytearray(_text(row, column))
        data[at % len(data)] ^= mask
        changed = data.decode("utf-8", "surrogateescape")
    table.rows[seq - 1] = _with(row, column, changed)
    broken = table.found()
    assert broken is not None
    if column == "seq":
        assert broken.seq in (seq, min(seq, changed), changed)
    else:
        assert broken.seq == seq


@given(st.integers(1, COUNT))
def test_a_row_that_was_removed_is_found(seq: int) -> None:
    """Wherever it was, the last one included."""
    table = Table(COUNT)
    del table.rows[seq - 1]
    assert table.found().seq == seq


@given(st.lists(st.integers(1, COUNT), min_size=2, max_size=2, unique=True), st.booleans())
def test_rows_that_were_swapped_are_found(pair: list[int], renumbered: bool) -> None:
    """Whether or not their numbers were made to fit."""
    table = Table(COUNT)
    one, other = (seq - 1 for seq in pair)
    rows = table.rows
    rows[one], rows[other] = _with(rows[other], "seq", pair[0]), _with(rows[one], "seq", pair[1])
    if renumbered:
        first, second = rows[one].prev_hash, rows[other].prev_hash
        rows[one] = _with(rows[one], "prev_hash", second)
        rows[other] = _with(rows[other], "prev_hash", first)
    assert table.found().seq == min(pair)


@given(st.integers(-3, COUNT + 3), st.integers(1, COUNT))
def test_a_row_that_was_inserted_is_found(seq: int, copied: int) -> None:
    """A copy of another: in its place, before the first, between and behind the last."""
    table = Table(COUNT)
    copy = _with(table.rows[copied - 1], "seq", seq)
    table.rows = [row for row in table.rows if row.seq != seq] + [copy]
    broken = table.found()
    if seq == copied:
        assert broken is None
    else:
        assert broken.seq in (seq, COUNT + 1)


@given(st.integers(1, COUNT), st.booleans())
def test_an_end_that_was_cut_off_is_found(kept: int, rewound: bool) -> None:
    """By the head; and where an older head was put in its place, by the copy of it outside."""
    table = Table(COUNT)
    noted = table.head
    table.rows = table.rows[: kept - 1]
    if rewound:
        table.head = CHAIN.head(table.rows[-1]) if table.rows else None
        assert table.found() is None
    broken = table.found(noted)
    assert (broken.seq, broken.why) == (kept, f"the rows up to {COUNT} are missing")


@given(st.integers(1, COUNT), st.sampled_from(("seq", "hash", "mac")), st.sampled_from("hb"))
def test_ends_are_made_by_nobody_else(seq: int, column: str, which: str) -> None:
    """A head or a base that was changed is found, and so is a base that was made up."""
    table = Table(COUNT)
    good = CHAIN.anchored("head" if which == "h" else "base", seq, table.rows[seq - 1].hash)
    value = seq + 1 if column == "seq" else "0" * 64
    bad = msgspec.structs.replace(good, **{column: value})
    if which == "h":
        table.head = bad
    else:
        table.base, table.rows = bad, table.rows[seq:]
    broken = table.found()
    assert broken is not None
    assert broken.seq == bad.seq


def test_another_key_verifies_nothing() -> None:
    """The key is what makes it ours."""
    table = Table(COUNT)
    other = asyncio.run(verify(table, Chain(bytes(32)), None))  # type: ignore[arg-type]  # as a store
    assert other.broken is not None


@pytest.fixture
async def filled(store: Store, tmp_path: Path) -> Store:
    """A store of either kind whose log has some events."""
    await fill(store, tmp_path, COUNT)
    return store


async def test_what_was_recorded_verifies(filled: Store, tmp_path: Path) -> None:
    """Numbers without gaps, each row behind the other, in the order in which it was recorded."""
    rows = await rows_of(filled)
    assert [row.seq for row in rows] == list(range(1, COUNT + 1))
    assert [detail(row)["number"] for row in rows] == list(range(COUNT))
    verdict = await verdict_of(filled, tmp_path)
    assert (verdict.broken, verdict.last, verdict.rows) == (None, COUNT, COUNT)


@pytest.mark.parametrize("column", _COLUMNS)
async def test_a_change_in_the_database_is_found(
    filled: Store, tmp_path: Path, column: str
) -> None:
    """What the database itself gives back of a row that was changed is looked at."""
    (row,) = [each for each in await rows_of(filled) if each.seq == 5]
    value = getattr(row, column)
    changed = {"seq": 99, "time": time.time() + 1}.get(column, f"{value}"[:-1] + "x")
    change = sa.update(audit_events).where(audit_events.c.seq == 5).values({column: changed})
    await _run(filled, lambda c: c.execute(change))
    broken = (await verdict_of(filled, tmp_path)).broken
    assert broken is not None
    assert broken.seq == 5


@pytest.mark.parametrize("value", ["x'6163ff'", "NULL", "7", "x'61636d65'"])
async def test_what_sqlite_takes_for_a_text_is_found(tmp_path: Path, value: str) -> None:
    """Bytes that are no text, a number, nothing at all; and the same text is the same."""
    async with opened("", tmp_path) as store:
        await fill(store, tmp_path, 3)
        statements = (
            "PRAGMA writable_schema=ON",
            "UPDATE sqlite_schema SET sql = replace(sql, 'NOT NULL', '') WHERE name = 'audit_events'",
            "PRAGMA writable_schema=RESET",
        )
        for statement in statements:
            await _run(store, lambda c, s=statement: c.exec_driver_sql(s))  # type: ignore[misc]  # a default
        change = f"UPDATE audit_events SET tenant = {value} WHERE seq = 2"  # noqa: S608  # of the test's own
        await _run(store, lambda c: c.exec_driver_sql(change))
    async with opened("", tmp_path) as store:
        broken = (await verdict_of(store, tmp_path)).broken
        if value == "x'61636d65'":
            assert broken is None
        else:
            assert broken is not None
            assert broken.seq == 2


async def test_a_lost_head_is_found_and_mended(filled: Store, tmp_path: Path) -> None:
    """The log goes on behind its last row, and says that it had to look for it."""
    await _run(filled, lambda c: c.execute(sa.delete(audit_anchors)))
    broken = (await verdict_of(filled, tmp_path)).broken
    assert broken is not None
    assert broken.why == "the head is missing"
    await fill(filled, tmp_path, 1)
    assert (await verdict_of(filled, tmp_path)).broken is None
    assert [row.action for row in await rows_of(filled)][COUNT] == "audit.head_mended"


async def test_a_cut_end_stays_found_when_the_log_goes_on(filled: Store, tmp_path: Path) -> None:
    """The service that finds less than it noted says so, and leaves the note for who verifies."""
    rows = await rows_of(filled)
    cut = sa.delete(audit_events).where(audit_events.c.seq > 8)
    old = CHAIN.head(rows[7])
    rewind = sa.update(audit_anchors).values(seq=old.seq, hash=old.hash, mac=old.mac)
    await _run(filled, lambda c: (c.execute(cut), c.execute(rewind)))
    for _ in range(2):
        broken = (await verdict_of(filled, tmp_path)).broken
        assert broken is not None
        assert broken.seq > 8
        await fill(filled, tmp_path, 1)
    assert "audit.end_missing" in [row.action for row in await rows_of(filled)]
    await fill(filled, tmp_path, COUNT)
    broken = (await verdict_of(filled, tmp_path)).broken
    assert broken is not None
    assert broken.seq == COUNT


async def test_an_end_that_is_cut_under_a_running_log_is_told(store: Store, tmp_path: Path) -> None:
    """It remembers how far it was."""
    async with log_of(store, tmp_path) as log:
        for _ in range(3):
            log.record("test.done")
        assert await log.written()
        first = (await rows_of(store))[0]
        old = CHAIN.head(first)
        cut = sa.delete(audit_events).where(audit_events.c.seq > 1)
        rewind = sa.update(audit_anchors).values(seq=old.seq, hash=old.hash, mac=old.mac)
        await _run(store, lambda c: (c.execute(cut), c.execute(rewind)))
        log.record("test.done")
        assert await log.written()
        actions = [row.action for row in await rows_of(store)]
    assert actions == ["test.done", "audit.end_missing", "test.done"]


@settings(max_examples=20, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.binary(max_size=200))
def test_a_note_that_is_none_is_no_note(tmp_path: Path, data: bytes) -> None:
    """Whatever is in the file beside the database, it is read; and it is not trusted."""
    file = head_file(tmp_path)
    file.path.write_bytes(data)
    noted = file.read()
    assert noted is not None
    assert Table(3).found(noted) is not None
