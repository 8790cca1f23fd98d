"""The rows of tenants and of the client certificates that stand for them."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

import msgspec
import sqlalchemy as sa

from warmline_service.errors import Reason, WarmlineError
from warmline_service.store import _credentials
from warmline_service.store._rows import TenantRow
from warmline_service.store._schema import api_keys, identities, tenants


def create(connection: sa.Connection, row: TenantRow) -> None:
    """Store a new tenant. Raises TENANT_EXISTS, IDENTITY_TAKEN."""
    if find(connection, row.id) is not None:
        raise tenant_exists(row.id)
    values = msgspec.structs.asdict(row)
    del values["identities"]
    connection.execute(sa.insert(tenants).values(**values))
    _identify(connection, row.id, row.identities)


def find(connection: sa.Connection, tenant: str) -> TenantRow | None:
    """A tenant, if there is one."""
    rows = _with_identities(connection, sa.select(tenants).where(tenants.c.id == tenant))
    return rows[0] if rows else None


def page(connection: sa.Connection, after: str, limit: int) -> list[TenantRow]:
    """The tenants whose ids come after one, in order."""
    wanted = sa.select(tenants).where(tenants.c.id > after).order_by(tenants.c.id).limit(limit)
    return _with_identities(connection, wanted)


def update(
    connection: sa.Connection,
    tenant: str,
    values: Mapping[str, object],
    names: Collection[str] | None,
) -> TenantRow:
    """Change columns of a tenant, and its identities unless `names` is None.

    Raises TENANT_NOT_FOUND, IDENTITY_TAKEN.
    """
    _lock(connection, tenant)
    if values:
        connection.execute(sa.update(tenants).where(tenants.c.id == tenant).values(**values))
    if names is not None:
        _identify(connection, tenant, names)
    row = find(connection, tenant)
    assert row is not None
    return row


def shut_out(connection: sa.Connection, tenant: str, now: float) -> None:
    """Disable a tenant, revoke its keys, forget its identities and credentials. Raises TENANT_NOT_FOUND."""
    _lock(connection, tenant)
    connection.execute(sa.update(tenants).where(tenants.c.id == tenant).values(disabled=True))
    connection.execute(sa.delete(identities).where(identities.c.tenant == tenant))
    _credentials.remove_all(connection, tenant)
    live = (api_keys.c.tenant == tenant, api_keys.c.revoked_at.is_(None))
    connection.execute(sa.update(api_keys).where(*live).values(revoked_at=now))


def identified_by(connection: sa.Connection, name: str) -> TenantRow | None:
    """The tenant that an identity stands for."""
    wanted = sa.select(tenants).join(identities).where(identities.c.name == name)
    rows = _with_identities(connection, wanted)
    return rows[0] if rows else None


def tenant_not_found(tenant: str) -> WarmlineError:
    """There is none by this id, which is well-formed."""
    return WarmlineError(
        Reason.TENANT_NOT_FOUND, "There is no such tenant.", metadata={"tenantId": tenant}
    )


def tenant_exists(tenant: str) -> WarmlineError:
    """There is one by this id."""
    text = f"There is a tenant {tenant} already, or has been: an id is given once."
    return WarmlineError(Reason.TENANT_EXISTS, text, metadata={"tenantId": tenant})


def _lock(connection: sa.Connection, tenant: str) -> None:
    """What others do to the same tenant waits until the commit."""
    row = connection.execute(
        sa.select(tenants.c.id).where(tenants.c.id == tenant).with_for_update()
    ).one_or_none()
    if row is None:
        raise tenant_not_found(tenant)


def _identify(connection: sa.Connection, tenant: str, names: Collection[str]) -> None:
    wanted = set(names)
    rows = connection.execute(sa.select(identities).where(identities.c.name.in_(wanted))).all()
    for row in rows:
        if row.tenant != tenant:
            raise WarmlineError(
                Reason.IDENTITY_TAKEN,
                "Another tenant has this identity already.",
                metadata={"identity": row.name, "tenantId": row.tenant},
            )
    connection.execute(
        sa.delete(identities).where(identities.c.tenant == tenant, identities.c.name.not_in(wanted))
    )
    new = sorted(wanted - {row.name for row in rows})
    if new:
        values = [{"name": name, "tenant": tenant} for name in new]
        connection.execute(sa.insert(identities), values)


def _with_identities(
    connection: sa.Connection, wanted: sa.Select[tuple[object, ...]]
) -> list[TenantRow]:
    rows: Sequence[sa.Row[tuple[object, ...]]] = connection.execute(wanted).all()
    found: dict[str, list[str]] = {row._mapping["id"]: [] for row in rows}
    for row in connection.execute(
        sa.select(identities).where(identities.c.tenant.in_(found)).order_by(identities.c.name)
    ):
        found[row.tenant].append(row.name)
    return [TenantRow(**row._mapping, identities=tuple(found[row._mapping["id"]])) for row in rows]
