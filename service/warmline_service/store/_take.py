"""Becoming a session's writer: the lease, and all that whoever has it goes on from, at once."""

from __future__ import annotations

import sqlalchemy as sa

from warmline_service.store import _events, _leases, _sessions, _turns
from warmline_service.store._rows import Taken


def take(connection: sa.Connection, tenant: str, session_id: str, node_id: str) -> Taken:
    """Make a node the writer of a tenant's session; raises as `_leases.acquire` does."""
    _sessions.get(connection, tenant, session_id)
    token = _leases.acquire(connection, session_id, node_id)
    # Read once more: whoever had it before may have written until just now.
    return Taken(
        _sessions.get(connection, tenant, session_id),
        token,
        _events.position(connection, session_id),
        _sessions.part_count(connection, session_id),
        tuple(_turns.unfinished(connection, session_id)),
    )
