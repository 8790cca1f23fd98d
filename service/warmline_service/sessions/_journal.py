"""The journal: every event is stored before any stream is told of it, in groups as they come."""

from __future__ import annotations

import asyncio
import contextlib
import zlib
from collections import deque
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from itertools import chain
from typing import Any

import structlog

from warmline_service.config import LimitSettings, StoreSettings
from warmline_service.errors import WarmlineError
from warmline_service.sessions._entries import Entry, divide, event_of, part_of, row_of, take
from warmline_service.sessions._feed import Feed, Subscription
from warmline_service.sessions._outage import Outage, store_down
from warmline_service.sessions._session import Session
from warmline_service.sessions.events import BLOCK_EVENTS, Event, TextDelta, encode_body
from warmline_service.store import BlobMissing, Store, blob_key, elsewhere, event_name, part_name

_log = structlog.get_logger(__name__)

_PAGE = 1000
_GROUP = 5000
# Between the beginnings of two groups, in seconds: more, smaller ones would cost more than they win.
_INTERVAL = 0.002
_FIRST_RETRY = 0.1
_LAST_RETRY = 2.0
_CLOSE_TIMEOUT = 10.0
_FLUSH_TIMEOUT = 20.0
_ROWS, _BLOBS = "database", "blobs"
# What an event can do without whose turn has been given up.
_CONTENT = (TextDelta, *BLOCK_EVENTS)
# Most of a transcript is repetition: more effort wins little.
_LEVEL = 1


class Journal:
    """Takes events without waiting and stores them in order; then their streams are told.

    Whatever was added while one group was being stored is the next group. What has to go to the database
    itself does so beside, so that content of other sessions need not wait for it. While the store is down
    they wait in memory, and `check` refuses new turns; past `store.outage_grace` or `store.pending_bytes`
    `on_outage` is called, once. `on_lost` is called for a session that another server has taken over.
    """

    def __init__(
        self,
        store: Store,
        settings: StoreSettings,
        limits: LimitSettings,
        *,
        exclusive: bool,
    ) -> None:
        self._store = store
        self._settings = settings
        self._recent = limits.recent_bytes
        self._exclusive = exclusive
        self._feeds: dict[str, Feed] = {}
        self._pending: deque[Entry] = deque()
        self._pending_bytes = 0
        self._wanted = asyncio.Event()
        self._stored = asyncio.Event()
        self._outage = Outage(settings)
        # From when it is taken until it is told, or put back: what goes by the log, and what goes to the
        # database itself, one group at a time, whose sessions are busy meanwhile.
        self._logging: list[Entry] = []
        self._storing: list[Entry] = []
        self._busy: set[str] = set()
        self._storer: asyncio.Task[None] | None = None
        self._delay = _FIRST_RETRY
        self._spills: set[asyncio.Task[None]] = set()
        self._writer: asyncio.Task[None] | None = None
        self.on_outage: Callable[[WarmlineError], None] = lambda error: None
        self.on_lost: Callable[[Session], None] = lambda session: None

    async def start(self) -> None:
        """Begin to store."""
        self._writer = asyncio.create_task(self._write(), name="journal")

    async def aclose(self) -> None:
        """Store what waits, within a bound, and stop."""
        if self._writer is None:
            return
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_CLOSE_TIMEOUT):
                await self._drained()
        if self._pending:
            _log.error("events were not stored", events=len(self._pending))
        tasks = {self._writer, *self._spills} | ({self._storer} if self._storer else set())
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)

    def check(self) -> None:
        """Raise STORAGE_UNAVAILABLE while the store is down."""
        self._outage.check()

    def append(self, session: Session, event: Event) -> None:
        """Add an event; its seq must be the session's next."""
        if self._outage.overdue and isinstance(event.body, _CONTENT):
            return  # The turn has been given up for want of a store; its end is what counts.
        body = encode_body(event.body)
        spill = None
        if len(body) > self._settings.spill_bytes:
            key = blob_key(session.tenant, session.id, event_name(event.seq, event.turn_id))
            spill = self._spilling(self._spill(key, body))
        self._add(Entry(session, body, spill, event))

    def append_transcript(self, session: Session, turn_id: str, lines: Sequence[bytes]) -> None:
        """Add to a session's transcript; it is stored before every event that is added later."""
        lines_of = b"".join(line + b"\n" for line in lines)
        part, session.parts = session.parts, session.parts + 1
        if len(lines_of) > self._settings.spill_bytes:
            key = blob_key(session.tenant, session.id, part_name(part, turn_id))
            spill = self._spilling(self._spill_compressed(key, lines_of))
            self._add(Entry(session, lines_of, spill, part=part, turn_id=turn_id))
        else:
            body = zlib.compress(lines_of, _LEVEL)
            self._add(Entry(session, body, None, part=part, turn_id=turn_id))

    def _spilling(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.create_task(work)
        self._spills.add(task)
        task.add_done_callback(self._spills.discard)
        task.add_done_callback(lambda _: self._wanted.set())
        return task

    def _add(self, entry: Entry) -> None:
        self._pending.append(entry)
        self._pending_bytes += len(entry.body)
        self._wanted.set()
        if self._outage.down:
            self._look_at_outage()

    async def flushed(self, session: Session, timeout: float = _FLUSH_TIMEOUT) -> None:
        """Wait until every event of the session so far has been stored, or it was lost.

        Raises STORAGE_UNAVAILABLE after `timeout` seconds.
        """
        try:
            async with asyncio.timeout(timeout):
                while self._has_yet_to_store(session):
                    self._stored.clear()
                    await self._stored.wait()
        except TimeoutError:
            raise store_down() from None

    def _has_yet_to_store(self, session: Session) -> bool:
        entries = chain(self._logging, self._storing, self._pending)
        return any(each.session is session for each in entries)

    def discard(self, session: Session) -> None:
        """Store nothing more of a session: it is another's, or gone."""
        for entry in self._pending:
            if entry.session is session:
                self._pending_bytes -= len(entry.body)
                if entry.spill is not None:
                    entry.spill.cancel()
        self._pending = deque(e for e in self._pending if e.session is not session)
        self._stored.set()

    def feed(self, session_id: str, floor: int | None = None) -> Feed:
        """The session's feed; `floor` is the seq of its last event, where that is known."""
        feed = self._feeds.get(session_id)
        if feed is None:
            feed = self._feeds[session_id] = Feed(
                self._recent, local=self._exclusive or floor is not None, floor=floor
            )
        elif floor is not None:
            feed.begin(floor)
        return feed

    def forget(self, session_id: str) -> None:
        """This service has nothing to do with the session any more, but for those who watch it."""
        feed = self._feeds.get(session_id)
        if feed is not None:
            feed.local = self._exclusive
            if not feed.watched:
                del self._feeds[session_id]
            feed.wake()  # Who waits here for events has to look in the store from now on.

    def subscribe(
        self,
        session: tuple[str, str],
        after: int,
        wants: Callable[[Event], bool],
        *,
        raw: bool = False,
    ) -> Subscription:
        """Read a session's (tenant, id) events after a seq; `raw` where every line is wanted."""
        tenant, session_id = session

        def read(after: int, turn_id: str = "") -> Awaitable[list[Event]]:
            return self.read(tenant, session_id, after, turn_id=turn_id)

        return Subscription(self.feed(session_id), read, after, wants, raw=raw)

    def unsubscribe(self, session_id: str, subscription: Subscription, *, live: bool) -> None:
        """A stream has ended; `live` where the session is still at work here."""
        subscription.close()
        if not live:
            self.forget(session_id)

    async def read(
        self, tenant: str, session_id: str, after: int, *, turn_id: str = ""
    ) -> list[Event]:
        """Stored events after a seq; an empty page is the end."""
        rows = await self._store.events(session_id, after, _PAGE, turn_id=turn_id)
        events: list[Event] = []
        for row in rows:
            with contextlib.suppress(BlobMissing):  # It went out of keeping just now.
                events.append(await event_of(self._store.blobs, tenant, row))
        return events

    async def _spill_compressed(self, key: str, lines: bytes) -> None:
        await self._spill(key, await asyncio.to_thread(zlib.compress, lines, _LEVEL))

    async def _spill(self, key: str, body: bytes) -> None:
        delay = _FIRST_RETRY
        while True:
            try:
                await self._store.blobs.put(key, body)
            except WarmlineError as error:
                self._failed(_BLOBS, error)
            else:
                self._outage.recovered(_BLOBS)
                return
            await asyncio.sleep(delay)
            delay = min(2 * delay, _LAST_RETRY)

    async def _write(self) -> None:
        loop, began = asyncio.get_running_loop(), 0.0
        while True:
            await self._wanted.wait()
            # Only while many events come: one that comes alone is stored at once.
            pause = _FIRST_RETRY if self._outage.down else _INTERVAL
            if (early := began + pause - loop.time()) > 0:
                await asyncio.sleep(early)
            if self._storer is not None and not self._store.has_log:
                await asyncio.wait({self._storer})
            began = loop.time()
            self._wanted.clear()
            group, self._pending, more = take(self._pending, _GROUP, self._busy)
            if more:
                self._wanted.set()
            # Nothing may be left: large content is waited for, and its task sets the event again.
            await self._store_group(group)

    async def _store_group(self, group: list[Entry]) -> None:
        """Store what goes by the log; see that the rest is stored, now or when the database is free."""
        logged: list[Entry] = []
        if self._store.has_log:
            waits = self._storer is not None
            logged, group = divide(group, self._store.has_lease, waits=waits)
        if group and self._storer is not None:
            self._put_back(group)
        elif group:
            self._storing = group
            self._busy.update(entry.session.id for entry in group)
            self._storer = asyncio.create_task(self._store_rows(group), name="journal's rows")
        if logged:
            await self._store_log(logged)

    async def _store_log(self, group: list[Entry]) -> None:
        self._logging = group
        try:
            rows = [row_of(entry, entry.event) for entry in group if entry.event is not None]
            await self._store.log(rows)
            self._tell(group, set())
        except WarmlineError:
            # The log is not used for a while: whether the database can be is what counts.
            self._put_back(group)
            self._wanted.set()
        except Exception:  # noqa: BLE001  # as below
            _log.exception("a group of events was refused")
            await self._store_apart(group)
        finally:
            self._logging = []
            self._stored.set()

    async def _store_rows(self, group: list[Entry]) -> None:
        try:
            await self._append(group)
        except WarmlineError as error:
            self._put_back(group)
            self._failed(_ROWS, error)
            await asyncio.sleep(self._delay)
            self._delay = min(2 * self._delay, _LAST_RETRY)
        except Exception:  # noqa: BLE001  # one session's events must not keep the others' waiting
            _log.exception("a group of events was refused")
            await self._store_apart(group)
        else:
            self._delay = _FIRST_RETRY
            self._outage.recovered(_ROWS)
        finally:
            self._storer = None
            self._storing = []
            self._busy.clear()
            self._stored.set()
            self._wanted.set()

    def _put_back(self, group: list[Entry]) -> None:
        self._pending.extendleft(reversed(group))

    async def _append(self, group: list[Entry]) -> None:
        tokens = {entry.session.id: entry.session.token for entry in group}
        rows = [row_of(entry, entry.event) for entry in group if entry.event is not None]
        parts = [part_of(entry) for entry in group if entry.event is None]
        self._tell(group, await self._store.append(rows, parts, tokens))

    def _tell(self, group: list[Entry], lost: set[str]) -> None:
        """The group is stored but for sessions that are lost."""
        told: dict[Session, list[Event]] = {}
        for entry in group:
            self._pending_bytes -= len(entry.body)
            events = told.setdefault(entry.session, [])
            if entry.event is not None:
                events.append(entry.event)
        for session, events in told.items():
            if session.id in lost:
                self._lose(session)
            elif events:
                session.stored = events[-1].seq
                if (feed := self._feeds.get(session.id)) is not None:
                    feed.publish(events)
        self._stored.set()

    async def _store_apart(self, group: list[Entry]) -> None:
        """Store a group session by session; one that the store refuses by itself is given up here."""
        apart: dict[Session, list[Entry]] = {}
        for entry in group:
            apart.setdefault(entry.session, []).append(entry)
        for session, entries in apart.items():
            try:
                await self._append(entries)
            except WarmlineError:
                self._put_back(entries)
            except Exception:  # noqa: BLE001  # as above
                _log.exception("events were refused", session=session.id, events=len(entries))
                self._pending_bytes -= sum(len(entry.body) for entry in entries)
                self._lose(session)

    def _lose(self, session: Session) -> None:
        _log.warning("session lost", session=session.id)
        self.discard(session)
        feed = self._feeds.get(session.id)
        # This service may have it again, under a later lease.
        if feed is not None and feed.epoch <= session.token:
            feed.local = False
            feed.fail(elsewhere())
        self.on_lost(session)

    def _failed(self, what: str, error: Exception) -> None:
        self._outage.failed(what, error)
        self._look_at_outage()

    def _look_at_outage(self) -> None:
        if self._outage.becomes_overdue(self._pending_bytes):
            self.on_outage(store_down())

    async def _drained(self) -> None:
        while self._pending or self._logging or self._storing:
            self._stored.clear()
            await self._stored.wait()
