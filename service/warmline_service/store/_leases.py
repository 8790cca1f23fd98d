"""Who may write a session: one node at a time, by a row with a fencing epoch."""

from __future__ import annotations

import time
from collections.abc import Collection

import msgspec
import sqlalchemy as sa

from warmline_service.errors import Reason, WarmlineError
from warmline_service.store._database import now
from warmline_service.store._schema import leases, nodes, sessions, turns
from warmline_service.store._sqlite_writer import raw
from warmline_service.store._statement import Statement

_RETRY_AFTER = 1.0

_OF = leases.c.session_id == sa.bindparam("of")
_LOOK = Statement(lambda _: sa.select(leases.c.node_id, leases.c.epoch).where(_OF))
_LOCK = Statement(
    lambda _: sa.select(leases.c.node_id, leases.c.epoch).where(_OF).with_for_update()
)
_EPOCH = Statement(
    lambda _: (
        sa.select(sessions.c.epoch)
        .where(sessions.c.id == sa.bindparam("of"))
        # Not the key: each event that is stored refers to it.
        .with_for_update(key_share=True)
    )
)
_TAKE = Statement(lambda insert: insert(leases))
_RETAKE = Statement(
    lambda _: (
        sa.update(leases).where(_OF).values(node_id=sa.bindparam("to"), epoch=sa.bindparam("new"))
    )
)
_SET_EPOCH = Statement(
    lambda _: (
        sa.update(sessions)
        .where(sessions.c.id == sa.bindparam("of"))
        .values(epoch=sa.bindparam("new"), updated_at=sa.bindparam("at"))
    )
)
_RELEASE = Statement(
    lambda _: sa.delete(leases).where(
        _OF, leases.c.node_id == sa.bindparam("by"), leases.c.epoch == sa.bindparam("since")
    )
)
# One row: fetching each is a step of its own, after which Python's lock has to be fought for again.
_HELD = (
    "SELECT json_group_object(session_id, epoch) FROM leases "
    "WHERE session_id IN (SELECT value FROM json_each(?)) AND node_id = ?"
)


def renew(connection: sa.Connection, node_id: str, ttl: float) -> None:
    """Say that a node lives for `ttl` seconds more."""
    expires_at = now(connection) + ttl
    found = connection.execute(
        sa.update(nodes).where(nodes.c.id == node_id).values(expires_at=expires_at)
    )
    if not found.rowcount:
        connection.execute(sa.insert(nodes).values(id=node_id, expires_at=expires_at))


def be_alone(connection: sa.Connection, node_id: str) -> None:
    """Take what other nodes had: this one has the database to itself."""
    connection.execute(sa.delete(nodes).where(nodes.c.id != node_id))


def resign(connection: sa.Connection, node_id: str) -> None:
    """Give up every lease of a node, and the node."""
    connection.execute(sa.delete(leases).where(leases.c.node_id == node_id))
    connection.execute(sa.delete(nodes).where(nodes.c.id == node_id))


def acquire(connection: sa.Connection, session_id: str, node_id: str) -> int:
    """Make a node the session's writer; gives the new epoch, higher than any before.

    Raises SESSION_ELSEWHERE while another living node has it, SESSION_NOT_FOUND where it is gone.
    """
    # In the order of who appends events, or each would wait for the other: the lease, then the session.
    held = _locked(connection, session_id, node_id)
    row = _EPOCH(connection, {"of": session_id}).fetchone()
    if row is None:
        raise session_not_found()
    if held is None:
        # Somebody may have become the first writer while we waited for the session.
        held = _locked(connection, session_id, node_id)
    epoch = int(max(row[0], held or 0)) + 1
    if held is None:
        _TAKE(connection, {"session_id": session_id, "node_id": node_id, "epoch": epoch})
    else:
        _RETAKE(connection, {"of": session_id, "to": node_id, "new": epoch})
    _SET_EPOCH(connection, {"of": session_id, "new": epoch, "at": time.time()})
    return epoch


def _locked(connection: sa.Connection, session_id: str, node_id: str) -> int | None:
    """The epoch of a session's lease, which nobody gives up meanwhile; None without one.

    Raises SESSION_ELSEWHERE where another node has it.
    """
    held = None
    # First without a lock: the writer need not wait for who only asks.
    for look in (_LOOK, _LOCK):
        held = look(connection, {"of": session_id}).fetchone()
        if held is not None and held[0] != node_id and _lives(connection, held[0]):
            raise elsewhere()
    return None if held is None else int(held[1])


def _lives(connection: sa.Connection, node_id: str) -> bool:
    expires_at = connection.execute(
        sa.select(nodes.c.expires_at).where(nodes.c.id == node_id)
    ).scalar_one_or_none()
    return expires_at is not None and expires_at > now(connection)


def held_elsewhere(connection: sa.Connection, session_id: str, node_id: str) -> bool:
    """Whether another living node has a session."""
    held = connection.execute(
        sa.select(leases.c.node_id).where(leases.c.session_id == session_id)
    ).scalar_one_or_none()
    return held is not None and held != node_id and _lives(connection, held)


def elsewhere() -> WarmlineError:
    """Another server is the session's writer."""
    return WarmlineError(
        Reason.SESSION_ELSEWHERE, "Another server has this session.", retry_after=_RETRY_AFTER
    )


def release(connection: sa.Connection, session_id: str, node_id: str, epoch: int) -> None:
    """Give a lease up, if it is still held."""
    _RELEASE(connection, {"of": session_id, "by": node_id, "since": epoch})


def held(connection: sa.Connection, node_id: str, session_ids: Collection[str]) -> dict[str, int]:
    """The epochs of those of the sessions whose lease the node has; locked until the commit."""
    if connection.dialect.name == "sqlite":
        # Asked before every group of events: without what SQLAlchemy adds to it.
        ids = msgspec.json.encode(list(session_ids)).decode()
        (found,) = raw(connection).execute(_HELD, (ids, node_id)).fetchone()
        return msgspec.json.decode(found, type=dict[str, int])
    rows = connection.execute(
        sa.select(leases.c.session_id, leases.c.epoch)
        .where(leases.c.session_id.in_(session_ids), leases.c.node_id == node_id)
        .with_for_update(read=True)
    )
    return {row.session_id: row.epoch for row in rows}


def check(connection: sa.Connection, session_id: str, node_id: str, epoch: int) -> None:
    """Raise SESSION_ELSEWHERE where a node does not have a lease of this epoch; locked as by `held`."""
    if held(connection, node_id, [session_id]).get(session_id) != epoch:
        raise elsewhere()


def orphaned(connection: sa.Connection, node_id: str) -> list[tuple[str, str]]:
    """Sessions (tenant, id) with unfinished turns that no living node but this one has."""
    lives = sa.exists().where(
        leases.c.session_id == turns.c.session_id,
        nodes.c.id == leases.c.node_id,
        nodes.c.id != node_id,
        nodes.c.expires_at > now(connection),
    )
    rows = connection.execute(
        sa.select(sessions.c.tenant, sessions.c.id)
        .where(
            sessions.c.id == turns.c.session_id,
            turns.c.ended_at.is_(None),
            ~lives,
        )
        .distinct()
    )
    return [(row.tenant, row.id) for row in rows]


def session_not_found() -> WarmlineError:
    """The same for a session of another tenant as for one that does not exist."""
    return WarmlineError(Reason.SESSION_NOT_FOUND, "There is no such session.")
