"""The audit log's statements."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from typing import Any

import msgspec
import sqlalchemy as sa

from warmline_service.store._rows import Anchor, AuditPage, AuditQuery, AuditRow
from warmline_service.store._schema import audit_anchors, audit_events
from warmline_service.store._statement import Statement

# What it is extended by: given its head as it stands and its last row, the rows to add and the new head.
Extend = Callable[[Anchor, AuditRow | None], tuple[Sequence[AuditRow], Anchor]]
# Who removes its oldest rows: given the base and those rows, the new base; None where they are to stay.
Release = Callable[[Anchor | None, Sequence[AuditRow]], Anchor | None]

HEAD, BASE = "head", "base"
_NOTHING = Anchor(HEAD, 0, "", "")

_FIRST_HEAD = Statement(lambda insert: insert(audit_anchors).on_conflict_do_nothing())
_LOCK_HEAD = Statement(
    lambda _: sa.select(audit_anchors).where(audit_anchors.c.name == HEAD).with_for_update()
)
_LAST = Statement(lambda _: sa.select(audit_events).order_by(audit_events.c.seq.desc()).limit(1))
_ADD = Statement(lambda insert: insert(audit_events))
_SET_ANCHOR = Statement(
    lambda _: (
        sa.update(audit_anchors)
        .where(audit_anchors.c.name == sa.bindparam("of"))
        .values(
            {each.name: sa.bindparam(each.name) for each in audit_anchors.c if each.name != "name"}
        )
    )
)
_ADD_ANCHOR = Statement(lambda insert: insert(audit_anchors))


def append(
    connection: sa.Connection, extend: Extend, doubtful: tuple[int, str] | None
) -> list[AuditRow]:
    """Extend the log; gives the added rows.

    Nothing is added where the row `doubtful` (seq, hash) of an earlier try turns out to be there.
    """
    head = _locked(connection)
    if doubtful is not None and _is_there(connection, *doubtful):
        return []
    rows, new = extend(head, _last(connection))
    _ADD.many(connection, [msgspec.structs.asdict(row) for row in rows])
    _replace(connection, new)
    return list(rows)


def _locked(connection: sa.Connection) -> Anchor:
    """The head, which nobody else extends until the transaction ends."""
    row = _LOCK_HEAD(connection, {}).fetchone()
    if row is None:
        _FIRST_HEAD(connection, msgspec.structs.asdict(_NOTHING))
        row = _LOCK_HEAD(connection, {}).fetchone()
    return Anchor(*row)


def _is_there(connection: sa.Connection, seq: int, digest: str) -> bool:
    wanted = sa.select(audit_events.c.seq).where(
        audit_events.c.seq == seq, audit_events.c.hash == digest
    )
    return connection.execute(wanted).one_or_none() is not None


def _last(connection: sa.Connection) -> AuditRow | None:
    row = _LAST(connection, {}).fetchone()
    return None if row is None else AuditRow(*row)


def _replace(connection: sa.Connection, anchor: Anchor) -> None:
    # Changed in its place: who waits for the row's lock would find no row where it was made anew.
    values = msgspec.structs.asdict(anchor)
    if not _SET_ANCHOR(connection, {**values, "of": anchor.name}).rowcount:
        _ADD_ANCHOR(connection, values)


def anchor(connection: sa.Connection, name: str) -> Anchor | None:
    """One end of the log."""
    row = connection.execute(_plain(connection, audit_anchors).where(audit_anchors.c.name == name))
    found = row.one_or_none()
    return None if found is None else Anchor(*map(_text, found))


def page(connection: sa.Connection, after: int, limit: int) -> AuditPage:
    """The rows after a seq, in order, as they stand: bytes that are no text come back as surrogates.

    The head is read before the rows and the base after them: what is between them must be there.
    """
    head = anchor(connection, HEAD)
    wanted = _plain(connection, audit_events).where(audit_events.c.seq > after)
    found = connection.execute(wanted.order_by(audit_events.c.seq).limit(limit))
    rows = [AuditRow(*map(_text, row)) for row in found]
    base = anchor(connection, BASE)
    lowest = connection.execute(sa.select(sa.func.min(audit_events.c.seq))).scalar_one()
    return AuditPage(head, rows, base, lowest)


def _plain(connection: sa.Connection, table: sa.Table) -> sa.Select[Any]:
    """All columns. SQLite does not see to it that a text is one; a driver that is to read it fails."""
    if connection.dialect.name != "sqlite":
        return sa.select(table)
    return sa.select(
        *(
            sa.cast(each, sa.LargeBinary) if isinstance(each.type, sa.String) else each
            for each in table.c
        )
    )


def _text(value: Any) -> Any:
    return value.decode("utf-8", "surrogateescape") if isinstance(value, bytes) else value


def select(connection: sa.Connection, query: AuditQuery) -> list[AuditRow]:
    """A page of the rows that a query wants."""
    c = audit_events.c
    wanted = sa.select(audit_events)
    for column, value in (
        (c.tenant, query.tenant),
        (c.actor, query.actor),
        (c.session_id, query.session_id),
    ):
        if value:
            wanted = wanted.where(column == value)
    if query.action:
        wanted = wanted.where(c.action.startswith(query.action, autoescape=True))
    if query.since is not None:
        wanted = wanted.where(c.time >= query.since)
    if query.before is not None:
        wanted = wanted.where(c.time < query.before)
    if query.after is not None:
        wanted = wanted.where(c.seq < query.after if query.descending else c.seq > query.after)
    order = c.seq.desc() if query.descending else c.seq
    return [AuditRow(*row) for row in connection.execute(wanted.order_by(order).limit(query.limit))]


def release(connection: sa.Connection, before: float, limit: int, agree: Release) -> int:
    """Remove the oldest rows up to the first that is not from before a moment; gives how many.

    At most `limit` of them, and none where `agree` says so.
    """
    if anchor(connection, HEAD) is None:
        return 0  # Nothing was ever stored.
    _locked(connection)
    base = anchor(connection, BASE)
    c = audit_events.c
    wanted = sa.select(audit_events).where(c.seq > (base.seq if base else 0))
    found = connection.execute(wanted.order_by(c.seq).limit(limit))
    old = itertools.takewhile(lambda row: row.time < before, found)
    rows = [AuditRow(*row) for row in old]
    found.close()
    new = agree(base, rows) if rows else None
    if new is None:
        return 0
    connection.execute(sa.delete(audit_events).where(c.seq <= new.seq))
    _replace(connection, new)
    return len(rows)
