"""Every event is stored before it is told, whatever the store does meanwhile."""

import asyncio
from dataclasses import replace
from pathlib import Path
from random import Random

import pytest
from msgspec import structs
from running import until
from stores import (
    TENANT,
    event,
    hold,
    journal_of,
    opened,
    session,
    tell_log,
    tell_sqlite,
    writer_of,
)
from warmline_service.config import LimitSettings, StoreSettings
from warmline_service.errors import Reason, WarmlineError
from warmline_service.sessions import Journal, Session, Subscription
from warmline_service.sessions.events import Event, StopReason, TextDelta, TurnCompleted, Usage
from warmline_service.store import Store

DONE = TurnCompleted(StopReason.END_TURN, "", Usage(), None)


def subscribe(journal: Journal, of: Session, after: int = 0) -> Subscription:
    return journal.subscribe((of.tenant, of.id), after, lambda event: True)


async def take(reader: Subscription, count: int) -> list[Event]:
    """So many events; told one by one or joined."""
    seen: list[Event] = []
    async with asyncio.timeout(20):
        while not seen or seen[-1].seq < count:
            seen += await reader.get()
    return seen


def text_of(events: list[Event]) -> str:
    return "".join(each.body.text for each in events if isinstance(each.body, TextDelta))


async def test_what_is_told_is_stored(store: Store) -> None:
    """At the moment at which a stream is told of an event, the store has it."""
    of = await session(store)
    async with journal_of(store) as journal:
        journal.feed(of.id, 0)
        reader = subscribe(journal, of)
        for n in range(50):
            journal.append(of, event(of, TextDelta(str(n), 0)))
            told = await reader.get()
            assert (await store.position(of.id))[1] >= of.stored >= told[-1].seq


async def test_many_sessions_are_stored_in_groups_and_each_in_order(store: Store) -> None:
    """However they interleave, each stream is told its own, whole and in order."""
    sessions = [await session(store) for _ in range(5)]
    chance = Random(1)  # noqa: S311  # the same walk each time
    async with journal_of(store) as journal:
        readers = []
        for of in sessions:
            journal.feed(of.id, 0)
            readers.append(subscribe(journal, of))
        said: dict[str, str] = {}
        for n in range(400):
            of = chance.choice(sessions)
            if chance.random() < 0.05:
                # It goes another way than content does.
                journal.append(of, event(of, DONE))
            else:
                said[of.id] = said.get(of.id, "") + f"{n};"
                journal.append(of, event(of, TextDelta(f"{n};", 0)))
            if chance.random() < 0.1:
                await asyncio.sleep(chance.choice((0, 0, 0.002)))
        for of, reader in zip(sessions, readers, strict=True):
            told = await take(reader, of.seq)
            assert text_of(told) == said[of.id]
            assert [each.seq for each in told] == sorted({each.seq for each in told})
            again = await take(subscribe(journal, of), of.seq)
            assert text_of(again) == said[of.id]


async def test_content_does_not_wait_for_what_the_database_is_at(tmp_path: Path) -> None:
    """While it stores the end of one session's turn, another session's text is stored and told."""
    async with opened("", tmp_path) as store, journal_of(store) as journal:
        ended, going = await session(store), await session(store)
        for of in (ended, going):
            journal.feed(of.id, 0)
        readers = subscribe(journal, ended), subscribe(journal, going)
        gate = hold(writer_of(store))
        journal.append(ended, event(ended, TextDelta("last", 0)))
        journal.append(ended, event(ended, DONE))
        journal.append(going, event(going, TextDelta("a", 0)))
        assert text_of(await take(readers[1], 1)) == "a"
        journal.append(ended, event(ended, TextDelta("later", 0)))
        journal.append(going, event(going, TextDelta("b", 0)))
        assert text_of(await take(readers[1], 2)) == "b"
        assert readers[0].cursor == 0
        gate.set()
        assert text_of(await take(readers[0], 3)) == "lastlater"


async def test_what_is_on_its_way_to_the_store_is_waited_for(tmp_path: Path) -> None:
    """At whatever moment one begins to wait: it is never nowhere."""
    async with opened("", tmp_path) as store, journal_of(store) as journal:
        of = await session(store)
        journal.feed(of.id, 0)
        gate = hold(writer_of(store))
        journal.append(of, event(of, DONE))
        waiting = []
        for _ in range(10):
            waiting.append(asyncio.create_task(journal.flushed(of)))
            await asyncio.sleep(0)
        done, _ = await asyncio.wait(waiting, timeout=0.1)
        assert not done
        gate.set()
        await asyncio.gather(*waiting)
        assert (await store.position(of.id))[1] == of.seq


async def test_a_log_that_fails_costs_nothing(tmp_path: Path) -> None:
    """What it refused goes to the database, in its order, and new turns are not refused."""
    async with opened("", tmp_path) as store, journal_of(store) as journal:
        of = await session(store)
        journal.feed(of.id, 0)
        reader = subscribe(journal, of)
        await asyncio.to_thread(tell_log, store, usable=False)
        for n in range(3):
            journal.append(of, event(of, TextDelta(f"{n}", 0)))
        assert text_of(await take(reader, 3)) == "012"
        journal.check()
        assert [row.seq for row in await store.events(of.id, 0, 10)] == [1, 2, 3]
        await asyncio.to_thread(tell_log, store, usable=True)


async def test_a_transcript_is_stored_with_the_events_around_it(store: Store) -> None:
    """When the turn's end is told, so is what the next process needs."""
    of = await session(store)
    async with journal_of(store) as journal:
        journal.feed(of.id, 0)
        reader = subscribe(journal, of)
        journal.append_transcript(of, "t", [b'{"a":1}', b'{"b":2}'])
        journal.append(of, event(of, DONE))
        await take(reader, 1)
        assert [part.turn_id for part in await store.parts(TENANT, of.id)] == ["t"]


async def test_large_content_overtakes_nothing(store: Store, tmp_path: Path) -> None:
    """It goes to a blob, what follows it waits, and it comes back whole."""
    of = await session(store)
    big = "x" * 300_000
    async with journal_of(store) as journal:
        journal.feed(of.id, 0)
        reader = subscribe(journal, of)
        for text in ("a", big, "b"):
            journal.append(of, event(of, TextDelta(text, 0)))
        assert text_of(await take(reader, 3)) == f"a{big}b"
        assert [row.spilled for row in await store.events(of.id, 0, 10)] == [False, True, False]
        again = subscribe(journal, of)
        assert text_of(await take(again, 3)) == f"a{big}b"
    assert [each.name for each in (tmp_path / "blobs").rglob("event-*")] == ["event-2-"]


async def test_a_lost_lease_ends_the_streams_and_stores_nothing(store: Store) -> None:
    """SESSION_ELSEWHERE; other sessions go on."""
    lost, kept = await session(store), await session(store)
    async with journal_of(store) as journal:
        gone: list[Session] = []
        journal.on_lost = gone.append
        for of in (lost, kept):
            journal.feed(of.id, 0)
        readers = subscribe(journal, lost), subscribe(journal, kept)
        await store.take(TENANT, lost.id)
        for of in (lost, kept):
            journal.append(of, event(of, TextDelta("a", 0)))
        assert text_of(await readers[1].get()) == "a"
        with pytest.raises(WarmlineError) as caught:
            await readers[0].get()
        assert caught.value.reason is Reason.SESSION_ELSEWHERE
        assert gone == [lost]


async def test_a_session_that_is_had_again_keeps_nothing_of_its_lost_lease(store: Store) -> None:
    """What still waits under the lost lease is neither stored nor told, and harms the new one not."""
    before = await session(store)
    async with journal_of(store) as journal:
        gone: list[Session] = []
        journal.on_lost = gone.append
        after = replace(before, token=(await store.take(TENANT, before.id)).token)
        journal.feed(before.id, 0).epoch = after.token
        reader = subscribe(journal, after)
        # In one group, as after an outage.
        for of, text in ((before, "old"), (after, "new"), (before, "old"), (after, "er")):
            journal.append(of, event(of, TextDelta(text, 0)))
        assert text_of(await take(reader, 2)) == "newer"
        assert text_of(await journal.read(TENANT, after.id, 0)) == "newer"
        # By itself, as where the session is had again before anything of it is stored.
        journal.append(before, event(before, TextDelta("old", 0)))
        await journal.flushed(before)
        journal.append(after, event(after, TextDelta("!", 0)))
        assert text_of(await take(reader, 3)) == "!"
        assert set(gone) == {before}


async def test_who_waits_for_a_session_that_goes_is_told_what_others_store(store: Store) -> None:
    """An observer that waited while the session was at work here looks in the store from then on."""
    of = await session(store)
    here = Journal(store, StoreSettings(), LimitSettings(), exclusive=False)
    here.feed(of.id, 0)
    waiting = asyncio.create_task(take(subscribe(here, of), 1))
    await asyncio.wait({waiting}, timeout=0.1)
    here.forget(of.id)
    async with journal_of(store) as elsewhere:
        elsewhere.append(of, event(of, TextDelta("a", 0)))
        assert text_of(await waiting) == "a"


async def test_what_the_store_refuses_by_itself_costs_one_session(store: Store) -> None:
    """Its streams end by name and no more of it is stored; who shared the group goes on."""
    bad, good = await session(store), await session(store)
    async with journal_of(store) as journal:
        gone: list[Session] = []
        journal.on_lost = gone.append
        readers = []
        for of in (good, bad):
            journal.feed(of.id, 0)
            readers.append(subscribe(journal, of))
        # In one group; the second can be written in no database's text.
        refused = structs.replace(event(bad, TextDelta("x", 0)), parent="\ud800")
        for of, each in (
            (good, event(good, TextDelta("a", 0))),
            (bad, refused),
            (good, event(good, TextDelta("b", 0))),
            (bad, event(bad, TextDelta("y", 0))),
        ):
            journal.append(of, each)
        assert text_of(await take(readers[0], 2)) == "ab"
        with pytest.raises(WarmlineError, match="SESSION_ELSEWHERE"):
            await asyncio.wait_for(readers[1].get(), 60)
        assert gone == [bad]
        assert await store.events(bad.id, 0, 10) == []
        journal.check()
        journal.append(good, event(good, TextDelta("c", 0)))
        assert text_of(await take(readers[0], 3)) == "c"
        assert (journal._pending_bytes, journal._storing) == (0, [])


def fill(store: Store, pages: int) -> None:
    """Let SQLite's file grow no further, nor the log; with 0, without a bound. Blocks."""
    tell_log(store, usable=not pages)
    tell_sqlite(store, f"max_page_count={pages or 2**30}")


def refuses(journal: Journal) -> bool:
    """Whether new turns are refused for want of a store."""
    try:
        journal.check()
    except WarmlineError as error:
        return error.reason is Reason.STORAGE_UNAVAILABLE
    return False


async def test_a_full_disk_loses_nothing_and_ends_by_itself(tmp_path: Path) -> None:
    """New turns are refused by name while it lasts; what was under way is told when it is over."""
    async with opened("", tmp_path) as store, journal_of(store) as journal:
        of = await session(store)
        journal.feed(of.id, 0)
        reader = subscribe(journal, of)
        await asyncio.to_thread(fill, store, 1)
        for n in range(300):
            journal.append(of, event(of, TextDelta(f"{n:04}" * 100, 0)))
        await until(lambda: refuses(journal))
        await asyncio.to_thread(fill, store, 0)
        told = await take(reader, 300)
        assert text_of(told) == "".join(f"{n:04}" * 100 for n in range(300))
        journal.check()


async def test_an_outage_that_lasts_gives_turns_up(tmp_path: Path) -> None:
    """Past its bound `on_outage` is called once; of what comes then only ends are kept."""
    async with (
        opened("", tmp_path) as store,
        journal_of(store, outage_grace=0.2) as journal,
    ):
        of = await session(store)
        journal.feed(of.id, 0)
        reader = subscribe(journal, of)
        given_up = asyncio.Event()
        journal.on_outage = lambda error: given_up.set()
        await asyncio.to_thread(fill, store, 1)
        while not given_up.is_set():
            journal.append(of, event(of, TextDelta("x" * 1000, 0)))
            await asyncio.sleep(0.05)
        before = of.seq
        journal.append(of, event(of, TextDelta("not kept", 0)))
        journal.append(of, event(of, DONE))
        await asyncio.to_thread(fill, store, 0)
        told = await take(reader, of.seq)
        assert [each.seq for each in told if isinstance(each.body, TurnCompleted)] == [of.seq]
        assert text_of(told) == "x" * 1000 * before
