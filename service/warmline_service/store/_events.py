"""The journal's statements."""

from __future__ import annotations

import functools
import itertools
import sqlite3
from collections.abc import Mapping, Sequence

import msgspec
import sqlalchemy as sa
from sqlalchemy.dialects import postgresql

from warmline_service.store import _leases, _sessions
from warmline_service.store._rows import TURN_ENDS, TURN_STARTED, EventRow, PartRow, TurnState
from warmline_service.store._schema import events, sessions, turns
from warmline_service.store._sqlite_writer import raw
from warmline_service.store._statement import Statement

_COLUMNS = tuple(events.c)
_FIELDS = EventRow.__struct_fields__
_ROW = f"({', '.join('?' * len(_FIELDS))})"
# The most rows that one statement stores; up to _EXACT it is one made for just so many.
_MANY = 512
_EXACT = 64
# Rows beyond so many bytes make a page, whatever was asked for.
_PAGE_BYTES = 4 * 1024 * 1024

# One row, as `_leases` asks for them.
_LIVING = "SELECT json_group_array(id) FROM sessions WHERE id IN (SELECT value FROM json_each(?))"
_OPEN = sa.and_(turns.c.id == sa.bindparam("turn"), turns.c.ended_at.is_(None))
_START = Statement(lambda _: sa.update(turns).where(_OPEN).values(state=TurnState.RUNNING.value))
_SIZE = (
    sa.select(sa.func.coalesce(sa.func.sum(events.c.size), 0))
    .where(events.c.session_id == sa.bindparam("of"), events.c.seq >= turns.c.first_seq)
    .where(events.c.turn_id == sa.bindparam("turn"))
    .scalar_subquery()
)
_POSITION = Statement(
    lambda _: (
        sa.select(events.c.epoch, events.c.seq)
        .where(events.c.session_id == sa.bindparam("of"))
        .order_by(events.c.seq.desc())
        .limit(1)
    )
)
_END = Statement(
    lambda _: (
        sa.update(turns)
        .where(_OPEN)
        .values(
            state=sa.bindparam("end"),
            last_seq=sa.bindparam("last"),
            ended_at=sa.bindparam("at"),
            bytes=_SIZE,
        )
    )
)
_TOUCH = Statement(
    lambda _: (
        sa.update(sessions)
        .where(sessions.c.id == sa.bindparam("of"))
        .values(
            epoch=sa.bindparam("to"), last_seq=sa.bindparam("last"), updated_at=sa.bindparam("at")
        )
    )
)


def append(
    connection: sa.Connection,
    node_id: str,
    rows: Sequence[EventRow],
    parts: Sequence[PartRow],
    tokens: Mapping[str, int],
) -> set[str]:
    """Store events, what they say of their turns, and transcripts; gives the refused sessions.

    `tokens` are the epochs of the leases under which each session's events are written. Storing the
    same events again changes nothing, so a transaction whose outcome is not known may be repeated.
    """
    held = _leases.held(connection, node_id, tokens)
    refused = {session for session, epoch in tokens.items() if held.get(session) != epoch}
    good = [row for row in rows if row.session_id not in refused] if refused else rows
    for part in parts:
        if part.session_id not in refused:
            _sessions.add_part(connection, part)
    if good:
        insert(connection, good)
        _follow_turns(connection, good)
    return refused


def settle(connection: sa.Connection, rows: Sequence[EventRow]) -> None:
    """Give events rows that were stored before, in the log. Not where their sessions have been deleted.

    For SQLite, as the log is.
    """
    wanted = msgspec.json.encode(list({row.session_id for row in rows})).decode()
    (found,) = raw(connection).execute(_LIVING, (wanted,)).fetchone()
    living = msgspec.json.decode(found, type=set[str])
    insert(connection, [row for row in rows if row.session_id in living])


def insert(connection: sa.Connection, rows: Sequence[EventRow]) -> None:
    """Give events their rows; those that have one keep it."""
    # The one statement that every delta goes through: on SQLite without what SQLAlchemy adds to it.
    if connection.dialect.name == "sqlite":
        _insert_many(raw(connection), rows)
    else:
        statement = postgresql.insert(events).on_conflict_do_nothing()
        connection.execute(statement, [msgspec.structs.asdict(row) for row in rows])


def _insert_many(connection: sqlite3.Connection, rows: Sequence[EventRow]) -> None:
    """Many rows by one step of SQLite: Python's lock is given up, and fought for, at every step.

    More than a few by powers of two, so that not many statements have to be prepared.
    """
    at = 0
    while at < len(rows):
        count = len(rows) - at
        if count > _EXACT:
            count = min(1 << count.bit_length() - 1, _MANY)
        values = itertools.chain.from_iterable(map(msgspec.structs.astuple, rows[at : at + count]))
        connection.execute(_insertion(count), tuple(values))
        at += count


@functools.cache
def _insertion(count: int) -> str:
    rows = ", ".join([_ROW] * count)
    names = ", ".join(_FIELDS)
    return f"INSERT INTO events ({names}) VALUES {rows} ON CONFLICT DO NOTHING"  # noqa: S608  # names of ours


def _follow_turns(connection: sa.Connection, rows: Sequence[EventRow]) -> None:
    """Keep the rows of turns and sessions in step with their events."""
    for row in rows:
        if row.kind == TURN_STARTED:
            _started(connection, row)
        elif row.kind in TURN_ENDS:
            _ended(connection, row)


def _started(connection: sa.Connection, row: EventRow) -> None:
    _START(connection, {"turn": row.turn_id})
    _touch(connection, row)


def _ended(connection: sa.Connection, row: EventRow) -> None:
    values = {"turn": row.turn_id, "of": row.session_id, "end": TURN_ENDS[row.kind]}
    _END(connection, values | {"last": row.seq, "at": row.time})
    _touch(connection, row)


def _touch(connection: sa.Connection, row: EventRow) -> None:
    values = {"of": row.session_id, "to": row.epoch, "last": row.seq, "at": row.time}
    _TOUCH(connection, values)


def read(
    connection: sa.Connection, session_id: str, after: int, limit: int, *, turn_id: str = ""
) -> list[EventRow]:
    """The events after a seq, in order: at most `limit`, fewer where they are large."""
    wanted = sa.select(*_COLUMNS).where(events.c.session_id == session_id, events.c.seq > after)
    if turn_id:
        wanted = wanted.where(events.c.turn_id == turn_id)
    rows: list[EventRow] = []
    size = 0
    result = connection.execute(wanted.order_by(events.c.seq).limit(limit))
    for row in result:
        rows.append(EventRow(*row))
        size += rows[-1].size
        if size > _PAGE_BYTES:
            break
    result.close()
    return rows


def position(connection: sa.Connection, session_id: str) -> tuple[int, int]:
    """The epoch and seq of the last stored event; zeros where none is kept."""
    row = _POSITION(connection, {"of": session_id}).fetchone()
    return (row[0], row[1]) if row else (0, 0)


def first_seq(connection: sa.Connection, session_id: str) -> int:
    """The seq of the first event that is kept; 0 where none is."""
    found = connection.execute(
        sa.select(sa.func.min(events.c.seq)).where(events.c.session_id == session_id)
    ).scalar_one()
    return int(found or 0)


def spilled(connection: sa.Connection, session_id: str, upto: int) -> list[tuple[int, str]]:
    """The seqs, up to one, and the turns of the events whose body is in a blob."""
    rows = connection.execute(
        sa.select(events.c.seq, events.c.turn_id).where(
            events.c.session_id == session_id, events.c.seq <= upto, events.c.spilled
        )
    )
    return [(row.seq, row.turn_id) for row in rows]


def expire(connection: sa.Connection, session_id: str, upto: int) -> None:
    """Forget a session's events up to a seq, which is the last of a turn that has ended."""
    connection.execute(
        sa.delete(events).where(events.c.session_id == session_id, events.c.seq <= upto)
    )
    connection.execute(
        sa.update(turns)
        .where(
            turns.c.session_id == session_id,
            turns.c.last_seq <= upto,
            turns.c.ended_at.is_not(None),
        )
        .values(bytes=0)
    )
