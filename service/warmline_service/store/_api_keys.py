"""The rows of API keys."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec
import sqlalchemy as sa

from warmline_service.errors import Reason, WarmlineError
from warmline_service.store import _tenants
from warmline_service.store._database import alone
from warmline_service.store._rows import KeyRow, TenantRow
from warmline_service.store._schema import api_keys, identities, tenants


def create(connection: sa.Connection, row: KeyRow) -> None:
    """Store a new key. Raises TENANT_NOT_FOUND."""
    if _tenants.find(connection, row.tenant) is None:
        raise _tenants.tenant_not_found(row.tenant)
    _insert(connection, row)


def create_first(connection: sa.Connection, tenant: TenantRow, row: KeyRow) -> bool:
    """Store a key, and its tenant where it is missing, unless there is any key; whether it did."""
    # Two services that start at once: the second one waits here, and finds the other's key then.
    alone(connection, "first key")
    if any_key(connection):
        return False
    if _tenants.find(connection, tenant.id) is None:
        _tenants.create(connection, tenant)
    _insert(connection, row)
    return True


def find(connection: sa.Connection, key_id: str) -> tuple[KeyRow, bool] | None:
    """A key, and whether its tenant is disabled."""
    row = connection.execute(
        sa.select(api_keys, tenants.c.disabled).join(tenants).where(api_keys.c.id == key_id)
    ).one_or_none()
    return None if row is None else (_row_of(row), bool(row.disabled))


def page(connection: sa.Connection, tenant: str, after: str, limit: int) -> list[KeyRow]:
    """A tenant's keys whose ids come after one, in order."""
    rows = connection.execute(
        sa.select(api_keys)
        .where(api_keys.c.tenant == tenant, api_keys.c.id > after)
        .order_by(api_keys.c.id)
        .limit(limit)
    )
    return [_row_of(row) for row in rows]


def replace(connection: sa.Connection, key_id: str, ends_at: float, successor: KeyRow) -> KeyRow:
    """Let a key end at a moment, and store the one that follows it; gives the old one.

    Raises KEY_NOT_FOUND where it has ended already.
    """
    alive = sa.or_(api_keys.c.expires_at.is_(None), api_keys.c.expires_at > successor.created_at)
    changed = connection.execute(
        sa.update(api_keys)
        .where(api_keys.c.id == key_id, api_keys.c.revoked_at.is_(None), alive)
        .values(expires_at=ends_at)
    )
    if not changed.rowcount:
        raise key_not_found(key_id)
    _insert(connection, successor)
    return _get(connection, key_id)


def revoke(connection: sa.Connection, key_id: str, now: float) -> KeyRow:
    """Let a key end now, if it has not been revoked before. Raises KEY_NOT_FOUND."""
    connection.execute(
        sa.update(api_keys)
        .where(api_keys.c.id == key_id, api_keys.c.revoked_at.is_(None))
        .values(revoked_at=now)
    )
    return _get(connection, key_id)


def used(connection: sa.Connection, times: Mapping[str, float]) -> None:
    """Note when keys were used last."""
    column = api_keys.c.last_used_at
    for key_id, time in sorted(times.items()):
        later = sa.or_(column.is_(None), column < time)
        connection.execute(
            sa.update(api_keys).where(api_keys.c.id == key_id, later).values(last_used_at=time)
        )


def any_access(connection: sa.Connection) -> bool:
    """Whether anybody could show who he is: there is a key, or an identity."""
    return any_key(connection) or _exists(connection, identities)


def any_key(connection: sa.Connection) -> bool:
    """Whether there is any key, even one that has ended."""
    return _exists(connection, api_keys)


def key_not_found(key_id: str) -> WarmlineError:
    """No such key, or none that goes on."""
    text = "There is no such key, or it has ended."
    return WarmlineError(Reason.KEY_NOT_FOUND, text, metadata={"keyId": key_id})


def _exists(connection: sa.Connection, table: sa.Table) -> bool:
    return bool(connection.execute(sa.select(sa.exists(sa.select(table)))).scalar_one())


def _insert(connection: sa.Connection, row: KeyRow) -> None:
    values = msgspec.structs.asdict(row) | {"scopes": " ".join(sorted(row.scopes))}
    connection.execute(sa.insert(api_keys).values(**values))


def _get(connection: sa.Connection, key_id: str) -> KeyRow:
    found = find(connection, key_id)
    if found is None:
        raise key_not_found(key_id)
    return found[0]


def _row_of(row: sa.Row[tuple[object, ...]]) -> KeyRow:
    values = {column.name: row._mapping[column] for column in api_keys.c}
    return KeyRow(**values | {"scopes": frozenset(values["scopes"].split())})
