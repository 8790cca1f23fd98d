"""What waits to be stored, which of it can be stored now, and the rows that it becomes."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from collections.abc import Set as AbstractSet

from msgspec import Struct

from warmline_service.sessions._session import Session
from warmline_service.sessions.events import (
    Event,
    decode_body,
    kind_of,
)
from warmline_service.store import Blobs, EventRow, PartRow, blob_key, event_name, follows

# Of an event that is stored in the log first: content beyond so many bytes is not to be written twice.
_SMALL = 16 * 1024
# More than so many of each session get their rows at once: they fill the pages that they change.
_RUN = 4


class Entry(Struct):
    """What waits to be stored: an event, or a piece of a transcript (its number in `part`)."""

    session: Session
    body: bytes
    spill: asyncio.Task[None] | None
    event: Event | None = None
    part: int = -1
    turn_id: str = ""


def take(
    pending: deque[Entry], limit: int, busy: AbstractSet[str] = frozenset()
) -> tuple[list[Entry], deque[Entry], bool]:
    """What can be stored now: in a session nothing overtakes content that is not there yet.

    Nor what is being stored at the moment, of the sessions that are `busy`.

    What was said of one session under two leases goes in two groups. Gives the group, of at most
    `limit` entries, what is left, and whether some of that can be stored right after it; `pending` is
    used up.
    """
    group: list[Entry] = []
    left: deque[Entry] = deque()
    held = set(busy)
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


def divide(
    group: list[Entry], held: Callable[[str, int], bool], *, waits: bool
) -> tuple[list[Entry], list[Entry]]:
    """What of a group is better stored in the log, and what has to go to the database at once.

    The former is small content, of sessions of which there is nothing else, where it comes piece by piece; or
    all of it, where it would have to wait for the database (`waits`). Sessions whose lease is not known to be
    `held` go to the database, which knows.
    """
    other = {
        entry.session.id
        for entry in group
        if not (_is_small_content(entry) and held(entry.session.id, entry.session.token))
    }
    content = [entry for entry in group if entry.session.id not in other]
    sessions = len({entry.session.id for entry in content})
    if not waits and len(content) > _RUN * sessions:
        return [], group
    return content, [entry for entry in group if entry.session.id in other]


def _is_small_content(entry: Entry) -> bool:
    event = entry.event
    return (
        event is not None
        and entry.spill is None
        and len(entry.body) <= _SMALL
        and not follows(kind_of(event.body))
    )


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
