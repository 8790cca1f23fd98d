"""The rows of stored model credentials."""

from __future__ import annotations

import msgspec
import sqlalchemy as sa

from warmline_service.errors import Reason, WarmlineError
from warmline_service.store._rows import CredentialRow
from warmline_service.store._schema import credentials


def put(connection: sa.Connection, row: CredentialRow) -> CredentialRow:
    """Store a credential in place of the one by its name, if there is one; gives it as it is stored."""
    before = _locked(connection, row.tenant, row.name)
    if row.is_default:
        others = (credentials.c.tenant == row.tenant, credentials.c.is_default)
        connection.execute(sa.update(credentials).where(*others).values(is_default=False))
    if before is not None:
        row = msgspec.structs.replace(row, created_at=before.created_at)
        connection.execute(sa.update(credentials).where(*_named(row)).values(**_values(row)))
    else:
        connection.execute(sa.insert(credentials).values(**_values(row)))
    return row


def find(connection: sa.Connection, tenant: str, name: str) -> CredentialRow | None:
    """The tenant's credential by this name; with an empty one its default."""
    which = credentials.c.name == name if name else credentials.c.is_default
    row = connection.execute(
        sa.select(credentials).where(credentials.c.tenant == tenant, which)
    ).one_or_none()
    return None if row is None else _row_of(row)


def page(connection: sa.Connection, tenant: str, after: str, limit: int) -> list[CredentialRow]:
    """A tenant's credentials whose names come after one, in order."""
    rows = connection.execute(
        sa.select(credentials)
        .where(credentials.c.tenant == tenant, credentials.c.name > after)
        .order_by(credentials.c.name)
        .limit(limit)
    )
    return [_row_of(row) for row in rows]


def remove(connection: sa.Connection, tenant: str, name: str) -> None:
    """Forget one. Raises CREDENTIAL_NOT_FOUND."""
    which = (credentials.c.tenant == tenant, credentials.c.name == name)
    if not connection.execute(sa.delete(credentials).where(*which)).rowcount:
        raise credential_not_found(name)


def remove_all(connection: sa.Connection, tenant: str) -> None:
    """Forget all of a tenant's."""
    connection.execute(sa.delete(credentials).where(credentials.c.tenant == tenant))


def any_stored(connection: sa.Connection) -> bool:
    """Whether any tenant has one."""
    return bool(connection.execute(sa.select(sa.exists(sa.select(credentials)))).scalar_one())


def claim(connection: sa.Connection, row: CredentialRow, now: float, until: float) -> bool:
    """Take it upon us to refresh it until a moment; False where others have, or it is another by now."""
    free = credentials.c.claimed_until <= now
    taken = connection.execute(
        sa.update(credentials).where(*_same(row), free).values(claimed_until=until, failure="")
    )
    return bool(taken.rowcount)


def fail(connection: sa.Connection, row: CredentialRow, failure: str, until: float) -> None:
    """Nobody tries again before a moment, unless it is another by now."""
    connection.execute(
        sa.update(credentials).where(*_same(row)).values(claimed_until=until, failure=failure)
    )


def refresh(connection: sa.Connection, before: CredentialRow, row: CredentialRow) -> bool:
    """Store it with another secret; False where it is another already, or has been removed."""
    changed = {
        "sealed": row.sealed,
        "scopes": " ".join(row.scopes),
        "updated_at": row.updated_at,
        "expires_at": row.expires_at,
        "revision": row.revision,
        "refreshed_at": row.refreshed_at,
        "claimed_until": 0.0,
        "failure": "",
    }
    done = connection.execute(sa.update(credentials).where(*_same(before)).values(**changed))
    return bool(done.rowcount)


def credential_not_found(name: str) -> WarmlineError:
    """The tenant has none by this name, which is well-formed."""
    return WarmlineError(
        Reason.CREDENTIAL_NOT_FOUND,
        "No credential is stored for the tenant by this name.",
        metadata={"credential": name},
    )


def _locked(connection: sa.Connection, tenant: str, name: str) -> CredentialRow | None:
    row = connection.execute(
        sa.select(credentials)
        .where(credentials.c.tenant == tenant, credentials.c.name == name)
        .with_for_update()
    ).one_or_none()
    return None if row is None else _row_of(row)


def _named(row: CredentialRow) -> tuple[sa.ColumnElement[bool], ...]:
    return credentials.c.tenant == row.tenant, credentials.c.name == row.name


def _same(row: CredentialRow) -> tuple[sa.ColumnElement[bool], ...]:
    return (*_named(row), credentials.c.revision == row.revision)


def _values(row: CredentialRow) -> dict[str, object]:
    return msgspec.structs.asdict(row) | {"scopes": " ".join(row.scopes)}


def _row_of(row: sa.Row[tuple[object, ...]]) -> CredentialRow:
    values = dict(row._mapping)
    return CredentialRow(**values | {"scopes": tuple(values["scopes"].split())})
