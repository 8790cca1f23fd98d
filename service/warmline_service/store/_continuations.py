"""Names by which a tenant finds its sessions again."""

from __future__ import annotations

import time
from collections.abc import Iterable

import sqlalchemy as sa

from warmline_service.store._schema import continuations
from warmline_service.store._statement import Statement

_PUT = Statement(lambda insert: insert(continuations))
_DROP = Statement(
    lambda _: sa.delete(continuations).where(continuations.c.session_id == sa.bindparam("of"))
)


def put(connection: sa.Connection, session_id: str, tenant: str, names: Iterable[str]) -> None:
    """Give a session names, in place of those that it has."""
    drop(connection, session_id)
    row = {"session_id": session_id, "tenant": tenant, "given_at": time.time()}
    for name in names:
        _PUT(connection, row | {"name": name})


def take(connection: sa.Connection, tenant: str, name: str) -> str:
    """The tenant's session that a name was given to last, which has none from now on; empty for none."""
    session_id = connection.execute(
        sa.select(continuations.c.session_id)
        .where(continuations.c.tenant == tenant, continuations.c.name == name)
        .order_by(continuations.c.given_at.desc())
        .limit(1)
        # Two that ask at once get two sessions, or one gets none.
        .with_for_update(skip_locked=True)
    ).scalar_one_or_none()
    if session_id is None:
        return ""
    drop(connection, session_id)
    return str(session_id)


def drop(connection: sa.Connection, session_id: str) -> None:
    """Take a session's names away."""
    _DROP(connection, {"of": session_id})
