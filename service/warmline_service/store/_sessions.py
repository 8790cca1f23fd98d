"""The rows of sessions and of their transcripts."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
import sqlalchemy as sa

from warmline_service.errors import Reason, WarmlineError
from warmline_service.store import _turns
from warmline_service.store._blob_key import archive_size
from warmline_service.store._leases import session_not_found
from warmline_service.store._rows import Claim, Claimed, PartRow, Query, SessionRow, TurnRow
from warmline_service.store._schema import sessions, transcripts, turns
from warmline_service.store._statement import Statement

_RETRY_AFTER = 60.0

_ADD_PART = Statement(lambda insert: insert(transcripts).on_conflict_do_nothing())
_ADD = Statement(lambda insert: insert(sessions))
_GET = Statement(
    lambda _: sa.select(*(sessions.c[name] for name in SessionRow.__struct_fields__)).where(
        sessions.c.id == sa.bindparam("of"), sessions.c.tenant == sa.bindparam("by")
    )
)
_LAST_PART = Statement(
    lambda _: sa.select(sa.func.max(transcripts.c.part)).where(
        transcripts.c.session_id == sa.bindparam("of")
    )
)
_COUNT = Statement(
    lambda _: sa.select(sa.func.count()).select_from(
        sa.select(sessions.c.id)
        .where(sessions.c.tenant == sa.bindparam("by"))
        .limit(sa.bindparam("most"))
        .subquery()
    )
)


def create(
    connection: sa.Connection,
    row: SessionRow,
    wanted: Claim | None,
    limit: int,
    parts: Sequence[PartRow] = (),
) -> str:
    """Store a new session; gives its id, or that of the one that was made with the same key.

    Raises QUOTA_EXCEEDED where the tenant has `limit` sessions already, and as `_turns.claim` does.
    """
    # First: what the key refers to must be there, and is taken back with everything else.
    (count,) = _COUNT(connection, {"by": row.tenant, "most": limit}).fetchone()
    _ADD(connection, msgspec.structs.asdict(row))
    if wanted is not None:
        found = _turns.claim(connection, wanted, Claimed(row.id, ""))
        if found.session_id != row.id:
            connection.execute(sa.delete(sessions).where(sessions.c.id == row.id))
            return found.session_id
    if count >= limit:
        raise WarmlineError(
            Reason.QUOTA_EXCEEDED,
            f"This tenant has {limit} sessions already; delete some.",
            metadata={"limit": str(limit), "quota": "sessions_per_tenant"},
            retry_after=_RETRY_AFTER,
        )
    for part in parts:
        add_part(connection, part)
    return row.id


def get(connection: sa.Connection, tenant: str, session_id: str) -> SessionRow:
    """A tenant's session; SESSION_NOT_FOUND also for another tenant's."""
    row = _GET(connection, {"of": session_id, "by": tenant}).fetchone()
    if row is None:
        raise session_not_found()
    return SessionRow(*row)


def page(connection: sa.Connection, tenant: str, query: Query) -> list[SessionRow]:
    """A page of a tenant's sessions."""
    column = sessions.c[query.order]
    wanted = sa.select(sessions).where(sessions.c.tenant == tenant)
    if query.after is not None:
        place = sa.tuple_(column, sessions.c.id)
        after = sa.tuple_(sa.literal(query.after[0]), sa.literal(query.after[1]))
        wanted = wanted.where(place < after if query.descending else place > after)
    if query.updated_from is not None:
        wanted = wanted.where(sessions.c.updated_at >= query.updated_from)
    if query.updated_before is not None:
        wanted = wanted.where(sessions.c.updated_at < query.updated_before)
    if query.title_contains:
        wanted = wanted.where(sessions.c.title.icontains(query.title_contains, autoescape=True))
    if query.forked_from:
        wanted = wanted.where(sessions.c.forked_from == query.forked_from)
    order = (column.desc(), sessions.c.id.desc()) if query.descending else (column, sessions.c.id)
    rows = connection.execute(wanted.order_by(*order).limit(query.limit))
    return [SessionRow(**row._mapping) for row in rows]


def update(connection: sa.Connection, session_id: str, **values: object) -> None:
    """Change some columns of a session."""
    connection.execute(sa.update(sessions).where(sessions.c.id == session_id).values(**values))


def replace_workspace(
    connection: sa.Connection, session_id: str, slot_id: str, key: str
) -> str | None:
    """Let a session's files be under a key, if they are in this slot; gives the key before."""
    where = (sessions.c.id == session_id, sessions.c.slot_id == slot_id)
    row = connection.execute(
        sa.select(sessions.c.workspace_key).where(*where).with_for_update()
    ).one_or_none()
    if row is None:
        return None
    connection.execute(sa.update(sessions).where(*where).values(workspace_key=key, slot_id=""))
    return str(row.workspace_key)


def in_slots(connection: sa.Connection, slot_ids: Sequence[str]) -> list[SessionRow]:
    """The sessions whose workspaces are in these slots."""
    rows = connection.execute(sa.select(sessions).where(sessions.c.slot_id.in_(slot_ids)))
    return [SessionRow(**row._mapping) for row in rows]


def delete(connection: sa.Connection, session_id: str) -> None:
    """Remove a session's rows from every table."""
    connection.execute(sa.delete(sessions).where(sessions.c.id == session_id))


def unused(connection: sa.Connection, before: float, limit: int) -> list[SessionRow]:
    """Sessions whose last use was before a moment, the longest unused first."""
    rows = connection.execute(
        sa.select(sessions)
        .where(sessions.c.updated_at < before)
        .order_by(sessions.c.updated_at)
        .limit(limit)
    )
    return [SessionRow(**row._mapping) for row in rows]


def expirable(
    connection: sa.Connection, ended_before: float, limit: int
) -> list[tuple[SessionRow, int]]:
    """Sessions with events of turns that ended before a moment: up to which seq they may go."""
    rows = connection.execute(
        sa.select(sessions, sa.func.max(turns.c.last_seq).label("upto"))
        .join(turns, turns.c.session_id == sessions.c.id)
        .where(turns.c.ended_at < ended_before, turns.c.bytes > 0)
        .group_by(*sessions.c)
        .limit(limit)
    )
    return [(_session_of(row), row.upto) for row in rows]


def oversize(connection: sa.Connection, limit_bytes: int) -> list[tuple[str, int]]:
    """Tenants whose events take more than a bound, and by how much."""
    total = sa.func.sum(turns.c.bytes)
    rows = connection.execute(
        sa.select(sessions.c.tenant, (total - limit_bytes).label("excess"))
        .join(turns, turns.c.session_id == sessions.c.id)
        .group_by(sessions.c.tenant)
        .having(total > limit_bytes)
    )
    return [(row.tenant, int(row.excess)) for row in rows]


def stored_bytes(connection: sa.Connection, tenant: str) -> int:
    """What is kept of a tenant's sessions: events, transcripts and archived workspaces."""
    own = sa.select(sessions.c.id).where(sessions.c.tenant == tenant).scalar_subquery()
    total = 0
    for table, size in ((turns, turns.c.bytes), (transcripts, transcripts.c.size)):
        wanted = sa.select(sa.func.coalesce(sa.func.sum(size), 0))
        total += int(connection.execute(wanted.where(table.c.session_id.in_(own))).scalar_one())
    keys = sa.select(sessions.c.workspace_key).where(
        sessions.c.tenant == tenant, sessions.c.workspace_key != ""
    )
    return total + sum(map(archive_size, connection.execute(keys).scalars()))


def oldest_turns(
    connection: sa.Connection, tenant: str, limit: int
) -> list[tuple[SessionRow, TurnRow]]:
    """A tenant's turns that have ended and whose events are kept, the oldest first."""
    rows = connection.execute(
        sa.select(sessions, *(column.label(f"turn_{column.name}") for column in turns.c))
        .join(turns, turns.c.session_id == sessions.c.id)
        .where(sessions.c.tenant == tenant, turns.c.ended_at.is_not(None), turns.c.bytes > 0)
        .order_by(turns.c.ended_at)
        .limit(limit)
    )
    return [
        (
            _session_of(row),
            _turns.turn_of((c.name, row._mapping[f"turn_{c.name}"]) for c in turns.c),
        )
        for row in rows
    ]


def add_part(connection: sa.Connection, row: PartRow) -> None:
    """Store a piece of a transcript; again changes nothing."""
    _ADD_PART(connection, msgspec.structs.asdict(row))


def parts(connection: sa.Connection, session_id: str) -> list[PartRow]:
    """All pieces of a session's transcript, in order."""
    rows = connection.execute(
        sa.select(transcripts)
        .where(transcripts.c.session_id == session_id)
        .order_by(transcripts.c.part)
    )
    return [PartRow(**row._mapping) for row in rows]


def part_count(connection: sa.Connection, session_id: str) -> int:
    """How many pieces a session's transcript has: the number of the next."""
    (found,) = _LAST_PART(connection, {"of": session_id}).fetchone()
    return 0 if found is None else int(found) + 1


def _session_of(row: sa.Row[tuple[object, ...]]) -> SessionRow:
    return SessionRow(**{column.name: row._mapping[column] for column in sessions.c})
