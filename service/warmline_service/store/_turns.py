"""Turns and the keys of their messages."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import Any

import msgspec
import sqlalchemy as sa

from warmline_service.errors import Reason, WarmlineError
from warmline_service.store import _continuations, _leases
from warmline_service.store._rows import Claim, Claimed, TurnRow, TurnState
from warmline_service.store._schema import idempotency_keys, sessions, turns
from warmline_service.store._statement import Statement

_CLAIM = Statement(
    lambda insert: _over_expired(
        insert(idempotency_keys).values(
            {column.name: sa.bindparam(column.name) for column in idempotency_keys.c}
        )
    )
)
_KEYS = idempotency_keys.c
_CLAIMED = Statement(
    lambda _: sa.select(_KEYS.content_hash, _KEYS.session_id, _KEYS.turn_id).where(
        _KEYS.tenant == sa.bindparam("by"),
        _KEYS.key == sa.bindparam("name"),
        _KEYS.expires_at > sa.bindparam("now"),
    )
)
_UNFINISHED = Statement(
    lambda _: (
        sa.select(*(turns.c[name] for name in TurnRow.__struct_fields__))
        .where(turns.c.session_id == sa.bindparam("of"), turns.c.ended_at.is_(None))
        .order_by(turns.c.number)
    )
)
_ADD = Statement(lambda insert: insert(turns).on_conflict_do_nothing(index_elements=[turns.c.id]))
_COUNT = Statement(
    lambda _: (
        sa.update(sessions)
        .where(sessions.c.id == sa.bindparam("of"))
        .values(
            turn_count=sa.bindparam("number"),
            updated_at=sa.bindparam("now"),
            # A fork and an import have one already.
            title=sa.case(
                (
                    sa.and_(sessions.c.title == "", sa.bindparam("number") == 1),
                    sa.bindparam("title"),
                ),
                else_=sessions.c.title,
            ),
        )
    )
)


def look_up(connection: sa.Connection, wanted: Claim) -> Claimed | None:
    """Who has the key; None where nobody has, or not any more. Raises IDEMPOTENCY_CONFLICT."""
    values = {"by": wanted.tenant, "name": wanted.key, "now": wanted.now}
    found = _CLAIMED(connection, values).fetchone()
    if found is None:
        return None
    content_hash, session_id, turn_id = found
    if content_hash != wanted.content_hash:
        raise WarmlineError(
            Reason.IDEMPOTENCY_CONFLICT,
            "This idempotency key was used before, with other content.",
            metadata={"sessionId": session_id, "turnId": turn_id},
        )
    return Claimed(session_id, turn_id)


def claim(connection: sa.Connection, wanted: Claim, mine: Claimed) -> Claimed:
    """Who has the key from now on: `mine` where nobody has it, or not any more.

    Raises IDEMPOTENCY_CONFLICT where it stands for other content.
    """
    while True:
        taken = _CLAIM(
            connection,
            {
                "tenant": wanted.tenant,
                "key": wanted.key,
                "content_hash": wanted.content_hash,
                "session_id": mine.session_id,
                "turn_id": mine.turn_id,
                "expires_at": wanted.expires_at,
                "now": wanted.now,
            },
        )
        if taken.rowcount:
            return mine
        found = look_up(connection, wanted)
        if found is not None:
            return found  # Otherwise it was given back between the two.


def _over_expired(insert: Any) -> Any:
    """Take a key's row also where it is there, but has expired."""
    fields = ("content_hash", "session_id", "turn_id", "expires_at")
    return insert.on_conflict_do_update(
        index_elements=[idempotency_keys.c.tenant, idempotency_keys.c.key],
        set_={name: insert.excluded[name] for name in fields},
        where=idempotency_keys.c.expires_at <= sa.bindparam("now"),
    )


def accept(
    connection: sa.Connection,
    turn: TurnRow,
    title: str,
    wanted: Claim | None,
    lease: tuple[str, int],
    *,
    named: bool,
) -> Claimed:
    """Store a turn before it begins; or give the turn that has its key already.

    The same turn again changes nothing. `lease` is the node's and its epoch; raises SESSION_ELSEWHERE
    where it is not held any more. `named`: the session may have names, which say no more what was said.
    """
    mine = Claimed(turn.session_id, turn.id)
    node_id, token = lease
    _leases.check(connection, turn.session_id, node_id, token)
    if not _ADD(connection, msgspec.structs.asdict(turn)).rowcount:
        return mine
    if wanted is not None and (other := claim(connection, wanted, mine)) != mine:
        connection.execute(sa.delete(turns).where(turns.c.id == turn.id))
        return other
    values = {"of": turn.session_id, "number": turn.number, "now": turn.created_at}
    _COUNT(connection, values | {"title": title})
    if named:
        _continuations.drop(connection, turn.session_id)
    return mine


def begin(connection: sa.Connection, turn_id: str) -> None:
    """A turn that waited begins."""
    connection.execute(
        sa.update(turns)
        .where(turns.c.id == turn_id, turns.c.ended_at.is_(None))
        .values(state=TurnState.RUNNING)
    )


def withdraw(connection: sa.Connection, session_id: str, turn_ids: Collection[str]) -> None:
    """Forget turns that were stored and never accepted, with their keys."""
    keys = idempotency_keys
    gone = connection.execute(
        sa.delete(turns).where(turns.c.session_id == session_id, turns.c.id.in_(turn_ids))
    ).rowcount
    connection.execute(
        sa.delete(keys).where(keys.c.session_id == session_id, keys.c.turn_id.in_(turn_ids))
    )
    connection.execute(
        sa.update(sessions)
        .where(sessions.c.id == session_id)
        .values(turn_count=sessions.c.turn_count - gone)
    )


def find(connection: sa.Connection, session_id: str, turn_id: str) -> TurnRow | None:
    """A session's turn."""
    row = connection.execute(
        sa.select(turns).where(turns.c.session_id == session_id, turns.c.id == turn_id)
    ).one_or_none()
    return turn_of(row._mapping.items()) if row else None


def last_ended(connection: sa.Connection, session_id: str) -> TurnRow | None:
    """The last turn of a session that has ended."""
    row = connection.execute(
        sa.select(turns)
        .where(turns.c.session_id == session_id, turns.c.ended_at.is_not(None))
        .order_by(turns.c.number.desc())
        .limit(1)
    ).one_or_none()
    return turn_of(row._mapping.items()) if row else None


def unfinished(connection: sa.Connection, session_id: str) -> list[TurnRow]:
    """A session's turns that have no end yet, in their order."""
    rows = _UNFINISHED(connection, {"of": session_id}).fetchall()
    return [turn_of(zip(TurnRow.__struct_fields__, row, strict=True)) for row in rows]


def upto(connection: sa.Connection, session_id: str, number: int) -> list[TurnRow]:
    """A session's turns up to a number, in their order."""
    rows = connection.execute(
        sa.select(turns)
        .where(turns.c.session_id == session_id, turns.c.number <= number)
        .order_by(turns.c.number)
    )
    return [turn_of(row._mapping.items()) for row in rows]


def turn_of(columns: Iterable[tuple[Any, Any]]) -> TurnRow:
    """A turn as the database has it: its state is text there."""
    fields = dict(columns)
    return TurnRow(**(fields | {"state": TurnState(fields["state"])}))


def forget_keys(connection: sa.Connection, before: float) -> int:
    """Remove the keys that expired before a moment; gives how many."""
    return connection.execute(
        sa.delete(idempotency_keys).where(idempotency_keys.c.expires_at < before)
    ).rowcount
