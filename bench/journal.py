"""What storing an event before it is told adds to its way: from being said to being readable."""

from __future__ import annotations

import asyncio
import time
import uuid

import uvloop
from warmline_service.config import LimitSettings, StoreSettings
from warmline_service.host import be_prompt, settle_memory, share_time
from warmline_service.sessions import Journal, Session, SessionConfig, Subscription
from warmline_service.sessions.events import Event, TextDelta
from warmline_service.store import Blobs, SessionRow, Store, open_database

from bench.figures import Finding, Goal, Report, Series
from bench.plan import Plan

PART = "the journal (SQLite, WAL, synchronous=FULL)"
_SESSIONS = 100
_RATE = 50
_TENANT = "bench"


async def run(plan: Plan, report: Report) -> None:
    """One session alone, then a hundred at once, then one that floods: on the loop that the service has."""
    await asyncio.to_thread(uvloop.run, _run(plan, report))


async def _run(plan: Plan, report: Report) -> None:
    alone = report.series(PART, "one session, 50 events a second", "ms")
    many = report.series(PART, "100 sessions, 50 events a second each", "ms")
    cost = report.series(PART, "CPU of 1,000 events, 100 sessions", "ms", "of the whole process")
    flood = report.series(PART, "one session at full speed", "events/s")
    seconds = plan.pick(6, 2)
    settle_memory()
    share_time()
    store = Store(
        open_database("", plan.home / "journal.db"),
        Blobs("", plan.home / "blobs"),
        str(uuid.uuid4()),
    )
    await store.open()
    await store.renew(3600.0)
    journal = Journal(store, StoreSettings(), LimitSettings(), exclusive=True)
    await journal.start()
    be_prompt()
    try:
        sessions = [await _session(store, journal) for _ in range(_SESSIONS)]
        await _paced(journal, sessions[:1], seconds, alone)
        used, before = time.process_time(), len(many.values)
        await _paced(journal, sessions, seconds, many)
        took = time.process_time() - used
        cost.values.append(took * 1e6 / (len(many.values) - before))
        for _ in range(3):
            flood.values.append(await _flood(journal, sessions[0], plan.pick(50_000, 10_000)))
    finally:
        await journal.aclose()
        await store.aclose()
        await asyncio.to_thread((plan.home / "journal.db").unlink)
    report.findings.append(Finding("added by the journal, p99 in ms", alone.p99, Goal(5)))
    beside = Finding("the same beside 99 others, p99 in ms", many.p99, Goal(5, firm=False))
    report.findings.append(beside)


async def _session(store: Store, journal: Journal) -> Session:
    now = time.time()
    row = SessionRow(str(uuid.uuid4()), _TENANT, "", "{}", now, now)
    await store.create(row, None, 10 * _SESSIONS)
    token = (await store.take(_TENANT, row.id)).token
    journal.feed(row.id, 0)
    return Session(_TENANT, row.id, SessionConfig(), token, token, 0, 0, 0, "")


async def _paced(journal: Journal, sessions: list[Session], seconds: int, into: Series) -> None:
    count = _RATE * seconds
    readers = [_subscribe(journal, session) for session in sessions]
    reading = [asyncio.create_task(_read(reader, count, into)) for reader in readers]
    begun = time.monotonic()
    await asyncio.gather(
        *(
            _write(journal, session, count, begun + index / _RATE / len(sessions))
            for index, session in enumerate(sessions)
        )
    )
    await asyncio.wait_for(asyncio.gather(*reading), 60)
    for reader in readers:
        reader.close()


def _subscribe(journal: Journal, session: Session) -> Subscription:
    return journal.subscribe((_TENANT, session.id), session.seq, lambda event: True)


async def _write(journal: Journal, session: Session, count: int, begin: float) -> None:
    """Events by an absolute schedule; each holds the moment at which it was said."""
    for number in range(count):
        await asyncio.sleep(max(0.0, begin + number / _RATE - time.monotonic()))
        _append(journal, session, f"{time.monotonic_ns()};")


async def _read(reader: Subscription, count: int, into: Series) -> None:
    seen = 0
    while seen < count:
        events = await reader.get()
        now = time.monotonic_ns()
        for event in events:
            assert isinstance(event.body, TextDelta)
            stamps = [int(each) for each in event.body.text.split(";") if each]
            into.values += [(now - stamp) / 1e6 for stamp in stamps]
            seen += len(stamps)


async def _flood(journal: Journal, session: Session, count: int) -> float:
    reader = _subscribe(journal, session)
    last, begun = session.seq + count, time.monotonic()
    for number in range(count):
        _append(journal, session, "a few words of an answer")
        if number % 100 == 0:
            await asyncio.sleep(0)
    async with asyncio.timeout(60):
        while reader.cursor < last:
            await reader.get()
    reader.close()
    return count / (time.monotonic() - begun)


def _append(journal: Journal, session: Session, text: str) -> None:
    seq = session.next_seq()
    event = Event(session.id, "", session.epoch, seq, time.time(), TextDelta(text, 0))
    journal.append(session, event)
