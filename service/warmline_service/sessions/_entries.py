"""What waits to be stored, which of it can be stored now, and the rows that it becomes."""

from __future__ import annotations

import asyncio
from collections import deque

from msgspec import Struct

from warmline_service.sessions._session import Session
from warmline_service.sessions.events import Event, decode_body, kind_of
from warmline_service.store import Blobs, EventRow, PartRow, blob_key, event_name


class Entry(Struct):
    """What waits to be stored: an event, or a piece of a transcript (its number in `part`)."""

    session: Session
    body: bytes
    spill: asyncio.Task[None] | None
    event: Event | None = None
    part: int = -1
    turn_id: str = ""


def take(pending: deque[Entry], limit: int) -> tuple[list[Entry], deque[Entry], bool]:
    """What can be stored now: in a session nothing overtakes content that is not there yet.

    What was said of one session under two leases goes in two groups. Gives the group, of at most
    `limit` entries, what is left, and whether some of that can be stored right after it; `pending` is
    used up.
    """
    group: list[Entry] = []
    left: deque[Entry] = deque()
    held: set[str] = set()
    writers: dict[str, Session] = {}
    more = False
    while pending and len(group) < limit:
        entry = pending.popleft()
        session = entry.session
        waits = entry.spill is not None and not entry.spill.done()
        if session.id in held or waits or writers.setdefault(session.id, session) != session:
            more = more or (not waits and session.id not in held)
            held.add(session.id)
            left.append(entry)
        else:
            group.append(entry)
    more = more or bool(pending)
    left.extend(pending)
    return group, left, more


def part_of(entry: Entry) -> PartRow:
    """The row of a piece of a transcript."""
    spilled = entry.spill is not None
    lines = b"" if spilled else entry.body
    return PartRow(entry.session.id, entry.part, entry.turn_id, len(entry.body), spilled, lines)


def row_of(entry: Entry, event: Event) -> EventRow:
    """The row of an event."""
    spilled = entry.spill is not None
    return EventRow(
        event.session_id,
        event.seq,
        event.epoch,
        event.turn_id,
        kind_of(event.body),
        event.time,
        # A text of PostgreSQL's holds any character but this one.
        event.parent.replace("\0", ""),
        len(entry.body),
        spilled,
        b"" if spilled else entry.body,
    )


async def event_of(blobs: Blobs, tenant: str, row: EventRow) -> Event:
    """The event of a row. Raises BlobMissing, STORAGE_UNAVAILABLE."""
    body = row.body
    if row.spilled:
        body = await blobs.get(blob_key(tenant, row.session_id, event_name(row.seq, row.turn_id)))
    return Event(
        row.session_id,
        row.turn_id,
        row.epoch,
        row.seq,
        row.time,
        decode_body(body),
        row.parent,
    )
