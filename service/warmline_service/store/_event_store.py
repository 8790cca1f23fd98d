"""The journal's side of the store: every transaction on events, each within a deadline."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import TypeVar

import sqlalchemy as sa
import structlog

from warmline_service.errors import WarmlineError
from warmline_service.store import _events
from warmline_service.store._database import Database, SqliteDatabase
from warmline_service.store._event_log import EventLog
from warmline_service.store._fresh import Fresh
from warmline_service.store._rows import EventRow, PartRow

T = TypeVar("T")

_log = structlog.get_logger(__name__)

_TIMEOUT = 15.0
# Between two rounds of settling, in seconds: so many events of a session then go into the same pages.
_INTERVAL = 1.0
# A transaction of so many events keeps others waiting for about 1 ms.
_PORTION = 64
# What may wait to be settled, in bytes of memory.
_MOST = 16 * 1024 * 1024
# After a failure the log is not used for so many seconds.
_REST = 5.0


class EventStore:
    """Stores events, and reads them. Beside SQLite small ones may go by a log.

    Everything raises STORAGE_UNAVAILABLE while the database cannot be used.
    """

    def __init__(self, database: Database, node_id: str) -> None:
        self._database = database
        self._node_id = node_id
        self._log: EventLog | None = None
        if isinstance(database, SqliteDatabase):
            self._log = EventLog(database.path.with_name("events"))
        self._rests_until = 0.0
        self._unsettled = False
        self._fresh = Fresh()
        self._wanted = asyncio.Event()
        self._settler: asyncio.Task[None] | None = None

    async def open(self) -> None:
        """Settle what was left behind, and begin to settle what comes.

        Raises StoreMisconfigured where it is of another version.
        """
        if self._log is not None:
            for file in await self._log.close_file(_TIMEOUT):
                self._fresh.add(await self._log.read(file, _TIMEOUT))
            await self._settle(self._log)
            self._settler = asyncio.create_task(self._settle_by_rounds(self._log), name="settler")

    async def aclose(self) -> None:
        """Settle what is there, where that is possible; otherwise `open` does."""
        if self._log is None:
            return
        if self._settler is not None:
            self._settler.cancel()
            await asyncio.wait({self._settler})
            try:
                await self._settle(self._log)
            except WarmlineError as error:
                _log.warning("events were not settled", error=repr(error), left=self._fresh.count)
        await asyncio.to_thread(self._log.shut_down)

    @property
    def has_log(self) -> bool:
        """Whether events may go by the log at the moment."""
        usable = self._log is not None and time.monotonic() >= self._rests_until
        return usable and self._fresh.size < _MOST

    async def log(self, rows: Sequence[EventRow]) -> None:
        """Store events that say nothing of their turns, all or none, without waiting for the database.

        The database is not asked who has their sessions: beside SQLite there is no other service.
        """
        assert self._log is not None
        try:
            await self._log.append(rows, _TIMEOUT)
        except WarmlineError as error:
            _log.warning("the log of events could not be used", error=repr(error))
            self._rests_until = time.monotonic() + _REST
            raise
        self._fresh.add(rows)
        self._wanted.set()

    async def append(
        self, rows: Sequence[EventRow], parts: Sequence[PartRow], tokens: Mapping[str, int]
    ) -> set[str]:
        """Store events and pieces of transcripts under the leases' epochs, all or nothing.

        Gives the sessions whose lease is lost.
        """
        # In each session nothing may have a row before what was said earlier.
        earlier = [row for session_id in tokens for row in self._fresh.of(session_id)]
        lost = await self._write(
            lambda c: _events.append(c, self._node_id, [*earlier, *rows], parts, tokens)
        )
        self._fresh.settled(row for row in earlier if row.session_id not in lost)
        return lost

    async def read(
        self, session_id: str, after: int, limit: int, *, turn_id: str = ""
    ) -> list[EventRow]:
        """Events after a seq, in order, of one turn if it is named; an empty page is the end."""
        fresh = self._fresh.of(session_id)
        rows = await self._read(
            lambda c: _events.read(c, session_id, after, limit, turn_id=turn_id)
        )
        # The fresh ones are a session's last, and one that has got its row meanwhile has been read.
        if rows or not fresh:
            return rows
        wanted = (row for row in fresh if row.seq > after and turn_id in ("", row.turn_id))
        return list(wanted)[:limit]

    def logged_position(self, session_id: str) -> tuple[int, int]:
        """Epoch and seq of the last event that is in the log alone; zeros where none is."""
        fresh = self._fresh.of(session_id)
        return (fresh[-1].epoch, fresh[-1].seq) if fresh else (0, 0)

    async def position(self, session_id: str) -> tuple[int, int]:
        """Epoch and seq of the last stored event."""
        logged = self.logged_position(session_id)
        if logged != (0, 0):
            return logged
        return await self._read(lambda c: _events.position(c, session_id))

    async def first_seq(self, session_id: str) -> int:
        """The seq of the first event that is kept; 0 where none is."""
        fresh = self._fresh.of(session_id)
        first = await self._read(lambda c: _events.first_seq(c, session_id))
        return first or (fresh[0].seq if fresh else 0)

    async def expire(self, session_id: str, upto: int) -> list[tuple[int, str]]:
        """Forget a session's events up to the end of a turn; the seqs and turns of those in blobs."""
        if self._log is not None:
            await self._settle(self._log)  # Or a log that is read again would bring them back.
        spilled = await self._read(lambda c: _events.spilled(c, session_id, upto))
        await self._write(lambda c: _events.expire(c, session_id, upto))
        return spilled

    def forget(self, session_id: str) -> None:
        """A session has been deleted."""
        self._fresh.forget(session_id)

    async def _settle_by_rounds(self, log: EventLog) -> None:
        while True:
            await self._wanted.wait()
            await asyncio.sleep(_INTERVAL)
            self._wanted.clear()
            try:
                await self._settle(log)
            except Exception as error:  # noqa: BLE001  # they stay in the log, and are tried again
                if not self._unsettled:
                    _log.warning("events cannot be settled", error=repr(error))
                self._unsettled = True
                self._wanted.set()
            else:
                self._unsettled = False

    async def _settle(self, log: EventLog) -> None:
        """Give all that is in the log now rows of its own."""
        files = await log.close_file(_TIMEOUT)
        for portion in self._fresh.portions(_PORTION):
            await self._write(partial(_events.settle, rows=portion))
            self._fresh.settled(portion)
        if files:
            await log.remove(files, _TIMEOUT)

    async def _write(self, work: Callable[[sa.Connection], T]) -> T:
        return await self._database.write(work, _TIMEOUT)

    async def _read(self, work: Callable[[sa.Connection], T]) -> T:
        return await self._database.read(work, _TIMEOUT)
