"""Names by which a tenant finds its sessions again."""

from __future__ import annotations

import time
from collections.abc import Iterable

import sqlalchemy as sa

from warmline_service.store._schema import continuations


def put(connection: sa.Connection, session_id: str, tenant: str, names: Iterable[str]) -> None:
    """Give a session names, in place of those that it has."""
    drop(connection, session_id)
    row = {"session_id": session_id, "tenant": tenant, "given_at": time.time()}
    connection.execute(sa.insert(continuations), [row | {"name": name} for name in names])


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
    connection.execute(sa.delete(continuations).where(continuations.c.session_id == session_id))
