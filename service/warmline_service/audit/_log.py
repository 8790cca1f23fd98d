"""The log: takes events without waiting, and stores them in order, in groups."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec
import structlog

from warmline_service.audit._caller import SERVICE, caller
from warmline_service.audit._chain import ORIGIN, Chain, Entry
from warmline_service.audit._head_file import HeadFile
from warmline_service.audit._redact import redacted_text
from warmline_service.audit._tally import Tally
from warmline_service.config import AuditSettings
from warmline_service.errors import WarmlineError
from warmline_service.store import Anchor, AuditPage, AuditRow, AuditStore

_log = structlog.get_logger(__name__)

# What waits in memory while the store is down.
_MOST = 10_000
_MOST_BYTES = 16 * 1024 * 1024
# What one transaction stores; on PostgreSQL its rows are made on the loop.
_GROUP = 200
# Events are stored together so long after the first, in seconds: the conversations' own come first.
_INTERVAL = 0.25
_FIRST_RETRY, _LAST_RETRY = 0.1, 5.0
_CLOSE_TIMEOUT = 5.0
# How often the head is noted beside the database, and how often the upkeep looks around, in seconds.
_NOTE_EVERY = 5.0
_ROUND = 5.0
_RETAIN_EVERY = 600.0
_RELEASED = 500
_DAY = 24 * 3600.0
_BODY = 16 * 1024
# As the columns are.
_WIDTHS = {
    "tenant": 64,
    "actor": 128,
    "action": 64,
    "session_id": 36,
    "turn_id": 36,
    "request_id": 128,
    "outcome": 64,
}


@dataclass(frozen=True)
class _Group:
    """What one transaction stores; `taken` of the entries were recorded, with details of `size` together."""

    entries: list[Entry]
    taken: int
    size: int


class AuditLog:
    """Who did what. `record` neither waits nor fails; what could not be kept is counted, and that is kept.

    Switched off it takes everything and keeps nothing.
    """

    def __init__(
        self, store: AuditStore, chain: Chain, settings: AuditSettings, file: HeadFile
    ) -> None:
        self.store = store
        self._chain = chain
        self._settings = settings
        self._file = file
        self._pending: deque[Entry] = deque()
        self._bytes = 0
        # Entries that were taken, and those that were stored or given up, since the start.
        self._taken = 0
        self._done = 0
        self._dropped = 0
        self._wanted = asyncio.Event()
        self._hurried = asyncio.Event()
        self._progress = asyncio.Event()
        self._doubtful: tuple[int, str] | None = None
        self._last: Anchor | None = None
        self._noted: Anchor | None = None
        self._noted_at = 0.0
        # The end of the table is not the one that was noted: the note stays, for whoever verifies.
        self._cut = False
        self._tallies = {
            "auth.failed": Tally(1),
            "policy.refused": Tally(10),
            "egress.refused": Tally(10),
            "egress.allowed": Tally(100),
        }
        self._tasks: list[asyncio.Task[None]] = []

    async def start(self) -> None:
        """Begin to store; it is recorded where the table ends before the place that was noted last."""
        if not self._settings.enabled:
            return
        await self._compare()
        self._tasks = [
            asyncio.create_task(self._write(), name="audit"),
            asyncio.create_task(self._look_after(), name="audit upkeep"),
        ]

    async def aclose(self) -> None:
        """Store what waits, within a bound, and stop."""
        if not self._tasks:
            return
        for tally in self._tallies.values():
            tally.close(float("inf"))
        if not await self.written(_CLOSE_TIMEOUT):
            _log.error("audit events were not stored", events=self._taken - self._done)
        for task in self._tasks:
            task.cancel()
        await asyncio.wait(self._tasks)
        self._tasks = []
        await self._note()

    def record(
        self,
        action: str,
        *,
        outcome: str = "ok",
        tenant: str = "",
        actor: str = SERVICE,
        session_id: str = "",
        turn_id: str = "",
        request_id: str = "",
        detail: Mapping[str, Any] | None = None,
    ) -> None:
        """Somebody did something, just now. `detail` is bounded and holds no secret: see `redacted`."""
        if not self._settings.enabled:
            return
        named = {
            "tenant": tenant,
            "actor": actor,
            "action": action,
            "session_id": session_id,
            "turn_id": turn_id,
            "request_id": request_id,
            "outcome": outcome,
        }
        fields = {name: _plain(value, _WIDTHS[name]) for name, value in named.items()}
        self._take(Entry(time=time.time(), detail=_json(detail or {}), **fields))

    def acted(
        self,
        action: str,
        *,
        tenant: str = "",
        session_id: str = "",
        outcome: str = "ok",
        detail: Mapping[str, Any] | None = None,
    ) -> None:
        """As `record`, for what is done in the call that is being served, or by the service itself."""
        who = caller()
        self.record(
            action,
            outcome=outcome,
            tenant=tenant or who.tenant,
            actor=who.actor,
            request_id=who.request_id,
            session_id=session_id,
            detail=detail,
        )

    def record_counted(
        self, action: str, kind: tuple[str, ...], detail: Mapping[str, Any], **fields: str
    ) -> None:
        """As `record`, for what may come in floods: in a minute only the first of a kind by themselves."""

        def tell(count: int, since: float) -> None:
            began = {"count": count, "since": round(since, 3)}
            self.record(action, detail=dict(detail) | began, **fields)

        if self._tallies[action].one(kind, time.time(), tell):
            self.record(action, detail=detail, **fields)

    def request_body(self, text: str) -> dict[str, str]:
        """What is kept of a message's text."""
        return _body(text) if self._settings.request_bodies else {}

    def response_body(self, text: str) -> dict[str, str]:
        """What is kept of what a turn came to."""
        return _body(text) if self._settings.response_bodies else {}

    async def written(self, timeout: float = _CLOSE_TIMEOUT) -> bool:
        """Wait until all that was recorded so far is stored; False where it is not in `timeout` seconds."""
        upto = self._taken
        try:
            async with asyncio.timeout(timeout):
                while self._done < upto:
                    self._hurried.set()
                    self._progress.clear()
                    await self._progress.wait()
        except TimeoutError:
            return False
        return True

    async def retain(self, now: float) -> int:
        """Remove what is past its time; gives how many rows. Raises STORAGE_UNAVAILABLE."""
        days, removed = self._settings.retention_days, 0
        found = _RELEASED
        while days and found == _RELEASED:
            found = await self.store.release(now - days * _DAY, _RELEASED, self._release)
            removed += found
        if removed:
            self.record("audit.expired", detail={"events": removed})
        return removed

    def _release(self, base: Anchor | None, rows: Sequence[AuditRow]) -> Anchor | None:
        after = self._chain.base_after(base, rows)
        if after is None:
            _log.error("the audit log was changed: nothing is removed; run `warmline audit verify`")
        return after

    def _take(self, entry: Entry) -> None:
        if len(self._pending) >= _MOST or self._bytes + len(entry.detail) > _MOST_BYTES:
            self._dropped += 1
            self._wanted.set()
            return
        self._pending.append(entry)
        self._bytes += len(entry.detail)
        self._taken += 1
        self._wanted.set()

    async def _write(self) -> None:
        delay, group = _FIRST_RETRY, None
        while True:
            await self._wanted.wait()
            if group is None:
                await self._gather()
                group = self._next_group()
            try:
                await self._store(group)
            except WarmlineError as error:
                if delay == _FIRST_RETRY:
                    _log.error("the audit log cannot be stored", reason=error.reason.value)
                await asyncio.sleep(delay)
                delay = min(2 * delay, _LAST_RETRY)
                continue  # With the same group: it may be stored all the same.
            except Exception:  # noqa: BLE001  # what no store takes must not keep what comes after it
                _log.exception("audit events were refused", events=len(group.entries))
                self._doubtful = None
                self._dropped += len(group.entries)
            self._finished(group)
            delay, group = _FIRST_RETRY, None
            if time.monotonic() - self._noted_at > _NOTE_EVERY:
                await self._note()

    async def _gather(self) -> None:
        """Wait a moment for what comes together, unless somebody waits for it, or it is enough."""
        if len(self._pending) >= _GROUP:
            return
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_INTERVAL):
                await self._hurried.wait()

    def _next_group(self) -> _Group:
        taken = min(_GROUP, len(self._pending))
        entries = [self._pending.popleft() for _ in range(taken)]
        size = sum(len(each.detail) for each in entries)
        if self._dropped:
            entries.append(_own("audit.dropped", {"events": self._dropped}))
            self._dropped = 0
        return _Group(entries, taken, size)

    def _finished(self, group: _Group) -> None:
        self._done += group.taken
        self._bytes -= group.size
        if not self._pending and not self._dropped:
            self._wanted.clear()
            self._hurried.clear()
        self._progress.set()

    async def _store(self, group: _Group) -> None:
        tried: list[AuditRow] = []

        def extend(head: Anchor, last: AuditRow | None) -> tuple[list[AuditRow], Anchor]:
            place, found = self._place(head, last)
            tried[:] = self._chain.link(place, [*found, *group.entries])
            self._doubtful = tried[0].seq, tried[0].hash
            return tried, self._chain.head(tried[-1])

        await self.store.append(extend, self._doubtful)
        self._doubtful = None
        if tried:
            self._last = self._chain.head(tried[-1])

    def _place(self, head: Anchor, last: AuditRow | None) -> tuple[tuple[int, str], list[Entry]]:
        """Behind what to go on, and what there is to tell of how it was found."""
        told, own = [], self._last
        if own is not None and head.seq < own.seq:
            self._cut = True
            told.append(_own("audit.end_missing", {"noted": own.seq, "head": head.seq}))
        if self._chain.sealed(head) and (last is None or last.seq <= head.seq):
            return (head.seq, head.hash), told
        if last is None:
            return (0, ORIGIN), told
        told.append(_own("audit.head_mended", {"head": head.seq, "last": last.seq}))
        return (last.seq, last.hash), told

    async def _compare(self) -> None:
        """Look whether the table still has the row that was noted last."""
        try:
            noted = await asyncio.to_thread(self._file.read)
            page = await self.store.page(noted.seq - 1 if noted is not None else 0, 1)
        except (OSError, WarmlineError) as error:
            _log.warning("the end of the audit log was not looked at", error=repr(error))
            return
        if noted is not None and not self._is_kept(noted, page):
            self._cut = True
            _log.error("the audit log lacks its noted end; run `warmline audit verify`")
            at = page.head.seq if page.head is not None else 0
            self.record("audit.end_missing", detail={"noted": noted.seq, "head": at})

    def _is_kept(self, noted: Anchor, page: AuditPage) -> bool:
        """Whether a row is there as it was noted, or was removed as it may be."""
        there = any((row.seq, row.hash) == (noted.seq, noted.hash) for row in page.rows)
        base = page.base
        removed = base is not None and base.seq >= noted.seq and self._chain.sealed(base)
        return self._chain.sealed(noted) and (there or removed)

    async def _note(self) -> None:
        """Note the head beside the database."""
        self._noted_at = time.monotonic()
        if self._last is None or self._last == self._noted or self._cut:
            return
        last = self._last
        try:
            await asyncio.to_thread(self._file.write, last)
        except OSError as error:
            _log.warning("the end of the audit log was not noted", error=repr(error))
        else:
            self._noted = last

    async def _look_after(self) -> None:
        retained_at = float("-inf")
        while True:
            for tally in self._tallies.values():
                tally.close(time.time())
            await self._note()
            if time.monotonic() - retained_at > _RETAIN_EVERY:
                retained_at = time.monotonic()
                try:
                    await self.retain(time.time())
                except Exception as error:  # noqa: BLE001  # the next round may do better
                    _log.warning("audit retention put off", error=repr(error))
            await asyncio.sleep(_ROUND)


def _own(action: str, detail: Mapping[str, Any]) -> Entry:
    """What the log says of itself."""
    text = msgspec.json.encode(detail).decode()
    return Entry(time.time(), "", SERVICE, action, "", "", "", "ok", text)


def _json(detail: Mapping[str, Any]) -> str:
    try:
        return msgspec.json.encode(detail).decode()
    except (TypeError, ValueError, RecursionError):
        _log.exception("the detail of an audit event is no JSON")
        return '{"unreadable":true}'  # That it happened is kept all the same.


def _plain(text: str, width: int) -> str:
    """A text that fits its column and breaks no line."""
    text = text[:width]
    if text.isprintable():
        return text
    return "".join(letter if letter.isprintable() else "?" for letter in text)


def _body(text: str) -> dict[str, str]:
    return {"text": redacted_text(text, _BODY)}
