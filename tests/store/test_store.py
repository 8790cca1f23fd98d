"""What the store promises, on SQLite and on PostgreSQL alike."""

import asyncio
import time
import uuid
from collections.abc import Callable
from pathlib import Path

import pytest
import sqlalchemy as sa
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from stores import TENANT, event, opened, row, session
from warmline_service.errors import Reason, WarmlineError
from warmline_service.sessions import Session
from warmline_service.sessions.events import Body as AnyBody
from warmline_service.sessions.events import (
    StopReason,
    TextDelta,
    TurnCompleted,
    Usage,
    encode_body,
    kind_of,
)
from warmline_service.store import (
    Claim,
    EventRow,
    PartRow,
    Query,
    Store,
    TurnRow,
    TurnState,
    archive_name,
    archive_size,
    blob_key,
    open_database,
)
from warmline_service.store._schema import metadata

DONE = TurnCompleted(StopReason.END_TURN, "done", Usage(), None)


def stored(of: Session, body: AnyBody, turn_id: str = "") -> EventRow:
    """The row of a session's next event."""
    made, data = event(of, body, turn_id), encode_body(body)
    return EventRow(
        made.session_id,
        made.seq,
        made.epoch,
        turn_id,
        kind_of(body),
        made.time,
        "",
        len(data),
        False,
        data,
    )


def turn(of: Session, key: str = "", number: int = 1) -> TurnRow:
    """A turn that waits."""
    return TurnRow(
        str(uuid.uuid4()), of.id, number, key, TurnState.QUEUED, of.seq + 1, 0, time.time()
    )


def claim(key: str, content: str = "content", ttl: float = 60.0) -> Claim:
    now = time.time()
    return Claim(TENANT, key, content, now, now + ttl)


async def refused(work: object, reason: Reason) -> WarmlineError:
    with pytest.raises(WarmlineError) as caught:
        await work  # type: ignore[misc]  # an awaitable
    assert caught.value.reason is reason
    return caught.value


async def test_the_migrations_make_the_tables_that_the_code_has(store: Store) -> None:
    """Nothing is left for another migration to do."""

    def compare(connection: sa.Connection) -> list[object]:
        return list(compare_metadata(MigrationContext.configure(connection), metadata))

    assert await store._database.read(compare, 10.0) == []


async def test_what_was_stored_is_there_after_a_restart(store_url: str, tmp_path: Path) -> None:
    """By another instance, in order."""
    async with opened(store_url, tmp_path, "one") as store:
        of = await session(store)
        rows = [stored(of, TextDelta(str(i), 0)) for i in range(5)]
        assert await store.append(rows, [], {of.id: of.token}) == set()
    async with opened(store_url, tmp_path, "one") as store:
        assert await store.events(of.id, 0, 100) == rows
        assert await store.events(of.id, 3, 100) == rows[3:]
        assert await store.position(of.id) == (of.epoch, 5)


async def test_the_same_events_again_change_nothing(store: Store) -> None:
    """A transaction whose outcome is not known may be repeated."""
    of = await session(store)
    rows = [stored(of, TextDelta("a", 0)), stored(of, TextDelta("b", 0))]
    for _ in range(2):
        await store.append(rows, [], {of.id: of.token})
    assert await store.events(of.id, 0, 100) == rows


async def test_only_who_has_the_lease_writes(store_url: str, tmp_path: Path) -> None:
    """Of one that was taken over nothing is stored any more, and it is told so."""
    async with (
        opened(store_url, tmp_path, "one") as one,
        opened(store_url, tmp_path, "two") as two,
    ):
        of = await session(one)
        await refused(two.take(TENANT, of.id), Reason.SESSION_ELSEWHERE)
        await one.renew(-1.0)  # Nothing has been heard of it for too long.
        token = (await two.take(TENANT, of.id)).token
        assert token > of.token
        late = stored(of, TextDelta("late", 0))
        assert await one.append([late], [], {of.id: of.token}) == {of.id}
        assert await two.events(of.id, 0, 100) == []


async def test_a_new_writer_goes_on_from_what_there_is(store_url: str, tmp_path: Path) -> None:
    """It has all of it with the lease; who asks for another tenant's gets neither."""
    async with (
        opened(store_url, tmp_path, "one") as one,
        opened(store_url, tmp_path, "two") as two,
    ):
        of = await session(one)
        done, open_ = turn(of), turn(of, number=2)
        for each in (done, open_):
            await one.accept(each, "a title", None, of.token, named=False)
        rows = [
            stored(of, TextDelta("a", 0), done.id),
            stored(of, DONE, done.id),
            stored(of, TextDelta("b", 0), open_.id),
        ]
        part = PartRow(of.id, 0, done.id, 1, False, b"x")
        await one.append(rows, [part], {of.id: of.token})
        with pytest.raises(WarmlineError, match="SESSION_NOT_FOUND"):
            await two.take("somebody-else", of.id)
        assert one.has_lease(of.id, of.token)
        await one.resign()
        taken = await two.take(TENANT, of.id)
        assert taken.token > of.token
        assert taken.row == await two.session(TENANT, of.id)
        assert (taken.row.epoch, taken.row.turn_count) == (taken.token, 2)
        assert (taken.position, taken.parts) == ((of.epoch, 3), 1)
        assert [each.id for each in taken.unfinished] == [open_.id]
        assert await one.append([stored(of, DONE, open_.id)], [], {of.id: of.token}) == {of.id}


async def test_a_lost_session_keeps_no_others_from_being_stored(store: Store) -> None:
    """A group holds the events of many sessions."""
    lost, kept = await session(store), await session(store)
    await store.take(TENANT, lost.id)
    rows = [stored(lost, TextDelta("a", 0)), stored(kept, TextDelta("b", 0))]
    tokens = {lost.id: lost.token, kept.id: kept.token}
    assert await store.append(rows, [], tokens) == {lost.id}
    assert await store.events(kept.id, 0, 100) == rows[1:]


async def test_a_key_belongs_to_one_turn(store: Store) -> None:
    """Again gives that turn; other content is a conflict; another tenant's key is another key."""
    of = await session(store)
    first = turn(of, "key")
    assert (await store.accept(first, "title", claim("key"), of.token)).turn_id == first.id
    again = await store.accept(turn(of, "key", 2), "", claim("key"), of.token)
    assert (again.session_id, again.turn_id) == (of.id, first.id)
    conflict = store.accept(turn(of, "key", 2), "", claim("key", "other"), of.token)
    await refused(conflict, Reason.IDEMPOTENCY_CONFLICT)
    assert await store.claimed(claim("other key")) is None
    other = await session(store, "other")
    theirs = turn(other, "key")
    now = time.time()
    accepted = await store.accept(
        theirs, "", Claim("other", "key", "x", now, now + 60), other.token
    )
    assert accepted.turn_id == theirs.id


async def test_a_key_is_taken_once_however_many_want_it(store: Store) -> None:
    """At the same time, all get the same turn."""
    of = await session(store)
    found = await asyncio.gather(
        *(store.accept(turn(of, "key", n), "", claim("key"), of.token) for n in range(1, 9))
    )
    assert len({each.turn_id for each in found}) == 1
    assert len(await store.unfinished(of.id)) == 1


async def test_a_key_that_has_expired_is_free(store: Store) -> None:
    """It may be used again, for anything."""
    of = await session(store)
    await store.accept(turn(of, "key"), "", claim("key", ttl=-1.0), of.token)
    second = turn(of, "key", 2)
    assert (await store.accept(second, "", claim("key", "other"), of.token)).turn_id == second.id
    assert await store.forget_keys(time.time()) == 0


async def test_a_key_that_has_expired_is_taken_once(store: Store) -> None:
    """By those who want it at the same time: one has it, and the others are given that one's turn."""
    of = await session(store)
    await store.accept(turn(of, "key"), "", claim("key", ttl=-1.0), of.token)
    found = await asyncio.gather(
        *(store.accept(turn(of, "key", n), "", claim("key", "new"), of.token) for n in range(2, 10))
    )
    assert len({each.turn_id for each in found}) == 1
    assert await store.claimed(claim("key", "new")) == found[0]
    # The old one, and the one that has the key now.
    assert len(await store.turns(of.id)) == 2


async def test_a_turn_that_was_withdrawn_was_never_there(store: Store) -> None:
    """Its key is free and the count is right; again, or of one that is not there, changes nothing."""
    of, other = await session(store), await session(store)
    stays, goes, theirs = turn(of, "stays"), turn(of, "goes", 2), turn(other, "theirs")
    for each in (stays, goes):
        await store.accept(each, "", claim(each.key), of.token)
    await store.accept(theirs, "", claim("theirs"), other.token)
    for _ in range(2):
        await store.withdraw(of.id, [goes.id, theirs.id, str(uuid.uuid4())])
    assert [each.id for each in await store.turns(of.id)] == [stays.id]
    assert [each.id for each in await store.turns(other.id)] == [theirs.id]
    assert [(await store.session(TENANT, each.id)).turn_count for each in (of, other)] == [1, 1]
    assert await store.claimed(claim("goes")) is None
    for each in (stays, theirs):
        found = await store.claimed(claim(each.key))
        assert found is not None
        assert found.turn_id == each.id


async def test_a_turn_is_stored_once_and_under_the_lease(store: Store) -> None:
    """The same again changes nothing; without the lease it is refused."""
    of = await session(store)
    made = turn(of, "key")
    for _ in range(2):
        assert (await store.accept(made, "", claim("key"), of.token)).turn_id == made.id
    assert len(await store.turns(of.id)) == 1
    late = store.accept(turn(of, number=2), "", None, of.token - 1)
    await refused(late, Reason.SESSION_ELSEWHERE)


async def test_files_are_where_the_last_process_left_them(store: Store) -> None:
    """A process that the session has no more does not decide where its files are."""
    of = await session(store)
    await store.place_workspace(of.id, "first")
    assert await store.replace_workspace(of.id, "other", "wrong") is None
    assert await store.replace_workspace(of.id, "first", "one") == ""
    await store.place_workspace(of.id, "second")
    assert await store.replace_workspace(of.id, "first", "wrong") is None
    assert await store.replace_workspace(of.id, "second", "two") == "one"
    found = await store.session(TENANT, of.id)
    assert (found.workspace_key, found.slot_id) == ("two", "")


async def test_a_turn_follows_its_events(store: Store) -> None:
    """Its end is stored with the event that tells of it, once."""
    of = await session(store)
    made = turn(of)
    await store.accept(made, "what it is about", None, of.token)
    assert [each.id for each in await store.unfinished(of.id)] == [made.id]
    rows = [stored(of, TextDelta("a", 0), made.id), stored(of, DONE, made.id)]
    await store.append(rows, [], {of.id: of.token})
    ended = await store.turn(of.id, made.id)
    assert ended is not None
    assert ended.state is TurnState.COMPLETED
    assert ended.last_seq == of.seq
    assert ended.bytes == sum(each.size for each in rows)
    assert await store.unfinished(of.id) == []
    found = await store.session(TENANT, of.id)
    assert (found.title, found.turn_count, found.last_seq) == ("what it is about", 1, of.seq)


async def test_anothers_session_looks_like_none(store: Store) -> None:
    """The same error, word for word."""
    of = await session(store)
    theirs = await refused(store.session("other", of.id), Reason.SESSION_NOT_FOUND)
    none = await refused(store.session(TENANT, str(uuid.uuid4())), Reason.SESSION_NOT_FOUND)
    assert str(theirs) == str(none)


async def test_pages_hold_each_session_once_in_order(store: Store) -> None:
    """Whatever the size of the pages, also where times are the same."""
    rows = [row(updated_at=float(n // 3), created_at=float(-n)) for n in range(10)]
    for each in [*rows, row("other")]:
        await store.create(each, None, 1000)
    for order in ("updated_at", "created_at"):
        for descending in (True, False):
            seen: list[tuple[float, str]] = []
            query = Query(order=order, descending=descending, limit=3)
            while page := await store.sessions(TENANT, query):
                seen += [(getattr(each, order), each.id) for each in page]
                query = Query(order=order, descending=descending, limit=3, after=seen[-1])
            assert seen == sorted(
                ((getattr(each, order), each.id) for each in rows), reverse=descending
            )


async def test_a_filter_keeps_what_it_says(store: Store) -> None:
    """Text is text: no character of it means more."""
    for title in ("100% sure", "100 times", "Über_all"):
        await store.create(row(title=title, updated_at=5.0), None, 1000)

    async def titles(**wanted: object) -> list[str]:
        return sorted(each.title for each in await store.sessions(TENANT, Query(**wanted)))  # type: ignore[arg-type]

    assert await titles(title_contains="100%") == ["100% sure"]
    assert await titles(title_contains="R_A") == ["Über_all"]
    assert await titles(updated_from=5.0) == ["100 times", "100% sure", "Über_all"]
    assert await titles(updated_before=5.0) == []


async def test_a_tenant_has_so_many_sessions_and_no_more(store: Store) -> None:
    """The one too many is refused by name, and is not there."""
    for _ in range(2):
        await store.create(row(), None, 2)
    error = await refused(store.create(row(), None, 2), Reason.QUOTA_EXCEEDED)
    assert error.metadata["quota"] == "sessions_per_tenant"
    assert len(await store.sessions(TENANT, Query())) == 2


async def test_the_same_key_gives_the_same_session(store: Store) -> None:
    """A second one is not made, and counts for nothing."""
    first, second = row(), row()
    assert await store.create(first, claim("open"), 1) == first.id
    assert await store.create(second, claim("open"), 1) == first.id
    await refused(store.session(TENANT, second.id), Reason.SESSION_NOT_FOUND)


@pytest.mark.parametrize("why", ["quota", "key"])
async def test_a_session_that_is_not_made_leaves_nothing(
    store: Store, tmp_path: Path, why: str
) -> None:
    """Neither its transcript nor its files, which were put before it was refused."""
    there, refused_one = row(), row()
    await store.create(there, claim("key"), 2)
    key = blob_key(TENANT, refused_one.id, "workspace-1")
    await store.blobs.put(key, b"files")
    parts = [PartRow(refused_one.id, 0, "", 3, True, b"big")]
    if why == "quota":
        making = store.create(refused_one, None, 1, parts)
        await refused(making, Reason.QUOTA_EXCEEDED)
    else:
        making = store.create(refused_one, claim("key", "other"), 2, parts)
        await refused(making, Reason.IDEMPOTENCY_CONFLICT)
    assert blobs_in(tmp_path) == []
    assert [each.id for each in await store.sessions(TENANT, Query())] == [there.id]


def blobs_in(directory: Path) -> list[Path]:
    """What is kept of any session outside of the database."""
    return [each for each in (directory / "blobs").rglob("*") if each.is_file()]


async def test_a_deleted_session_leaves_nothing(store: Store, tmp_path: Path) -> None:
    """No row in any table and no blob; and nothing can be written to it any more."""
    of = await session(store)
    await store.accept(turn(of, "key"), "", claim("key"), of.token)
    parts = [PartRow(of.id, n, "", 3, n == 1, b"abc") for n in range(2)]
    await store.append([stored(of, DONE)], parts[:1], {of.id: of.token})
    made = row()
    await store.create(made, None, 10, [PartRow(made.id, 0, "", 3, True, b"big")])
    for each in (of.id, made.id):
        await store.delete(await store.session(TENANT, each))
    assert await store.append([stored(of, DONE)], [], {of.id: of.token}) == {of.id}

    def count(connection: sa.Connection) -> dict[str, int]:
        return {
            table.name: connection.execute(
                sa.select(sa.func.count()).select_from(table)
            ).scalar_one()
            for table in metadata.sorted_tables
            if table.name != "nodes"
        }

    assert set((await store._database.read(count, 10.0)).values()) == {0}
    assert blobs_in(tmp_path) == []


async def test_a_transcript_comes_back_as_it_was_put(store: Store) -> None:
    """In order, small pieces and spilled ones, and again changes nothing."""
    made = row()
    parts = [PartRow(made.id, n, f"t{n}", 9, n == 1, bytes([n]) * 9) for n in range(3)]
    await store.create(made, None, 10, parts)
    assert await store.parts(TENANT, made.id) == parts
    assert (await store.take(TENANT, made.id)).parts == 3


async def test_unfinished_turns_of_nobody_are_found(store_url: str, tmp_path: Path) -> None:
    """Those of a service that lives are its own business."""
    async with (
        opened(store_url, tmp_path, "one") as one,
        opened(store_url, tmp_path, "two") as two,
    ):
        of = await session(one)
        await one.accept(turn(of), "", None, of.token)
        assert await two.orphaned() == []
        assert await one.orphaned() == [(TENANT, of.id)]
        await one.resign()
        assert await two.orphaned() == [(TENANT, of.id)]


async def test_what_is_past_its_time_is_forgotten(store: Store) -> None:
    """Whole turns, the oldest first; their rows stay, so that their keys still lead to them."""
    of = await session(store)
    ids = []
    for number in (1, 2):
        made = turn(of, number=number)
        await store.accept(made, "", None, of.token)
        await store.append([stored(of, DONE, made.id)], [], {of.id: of.token})
        ids.append(made.id)
    ((found, upto),) = await store.expirable(
        time.time() + 1,
    )
    assert (found.id, upto) == (of.id, 2)
    oldest = await store.oldest_turns(TENANT)
    assert [each.id for _, each in oldest] == ids
    assert oldest[0][1] == await store.turn(of.id, ids[0])
    assert oldest[0][1].state is TurnState.COMPLETED
    assert await store.kept(oldest[0][1])
    await store.expire(oldest[0][0], oldest[0][1].last_seq)
    assert not await store.kept(oldest[0][1])
    assert await store.kept(oldest[1][1])
    assert [each.turn_id for each in await store.events(of.id, 0, 10)] == ids[1:]
    assert [each.id for _, each in await store.oldest_turns(TENANT)] == ids[1:]
    size = oldest[1][1].bytes
    assert await store.oversize(size - 1) == [(TENANT, 1)]
    assert await store.oversize(size) == []


async def test_what_a_tenant_keeps_is_one_sum(store: Store) -> None:
    """Events of turns that have ended, pieces of transcripts and archives, of its own sessions alone."""
    assert await store.stored_bytes(TENANT) == 0
    for tenant in (TENANT, "other"):
        of = await session(store, tenant)
        made = turn(of)
        await store.accept(made, "", None, of.token)
        lines = PartRow(of.id, 0, made.id, 100, False, bytes(100))
        spilled = PartRow(of.id, 1, made.id, 5000, True, b"")
        end = stored(of, DONE, made.id)
        await store.append([end], [lines, spilled], {of.id: of.token})
        await store.place_workspace(of.id, "slot")
        key = blob_key(tenant, of.id, archive_name(70_000))
        await store.replace_workspace(of.id, "slot", key)
        assert await store.stored_bytes(tenant) == 75_100 + end.size
        await store.delete(await store.session(tenant, of.id))
        assert await store.stored_bytes(tenant) == 0


async def test_a_number_that_another_turn_has_is_no_fault_of_the_callers(store: Store) -> None:
    """One that had been given up was stored after all: the next try takes another number."""
    of = await session(store)
    await store.accept(turn(of), "a title", None, of.token)
    await refused(store.accept(turn(of), "a title", None, of.token), Reason.STORAGE_UNAVAILABLE)


def test_an_archives_size_is_in_its_name() -> None:
    """And nothing that is no such name says one."""
    assert archive_size(blob_key(TENANT, str(uuid.uuid4()), archive_name(12))) == 12
    for name in ("workspace-0123456789012345", "event-1-2", "workspace-0123456789abcdef-x"):
        assert archive_size(f"{TENANT}/x/{name}") == 0


async def test_transactions_that_want_each_others_rows_are_both_done(postgres_url: str) -> None:
    """PostgreSQL undoes one of them; it is done again, and nobody hears of it."""
    database = open_database(postgres_url, Path("unused"))
    tries: list[int] = []

    def swap(first: int, second: int) -> Callable[[sa.Connection], None]:
        def work(connection: sa.Connection) -> None:
            tries.append(first)
            for number in (first, second):
                connection.execute(sa.text(f"SELECT pg_advisory_xact_lock({number})"))
                if number == first and len(tries) <= 2:
                    connection.execute(sa.text("SELECT pg_sleep(0.3)"))

        return work

    await asyncio.gather(database.write(swap(1, 2), 30), database.write(swap(2, 1), 30))
    assert len(tries) == 3
    await database.aclose()
