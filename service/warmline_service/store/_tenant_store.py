"""Tenants and their keys as others use them: every transaction on them, each within a deadline."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Collection, Mapping
from typing import TypeVar

import sqlalchemy as sa

from warmline_service.store import _api_keys, _tenants
from warmline_service.store._database import Database, unavailable
from warmline_service.store._rows import KeyRow, TenantRow

T = TypeVar("T")

# A call waits for it.
_TIMEOUT = 5.0


class TenantStore:
    """Tenants, API keys and identities.

    Everything raises STORAGE_UNAVAILABLE while the database cannot be used.
    """

    def __init__(self, database: Database) -> None:
        self._database = database

    async def create(self, row: TenantRow) -> None:
        """Store a new tenant. Raises TENANT_EXISTS, IDENTITY_TAKEN."""
        await self._write(lambda c: _tenants.create(c, row))

    async def tenant(self, tenant: str) -> TenantRow | None:
        """A tenant, if there is one."""
        return await self._read(lambda c: _tenants.find(c, tenant))

    async def tenants(self, after: str, limit: int) -> list[TenantRow]:
        """The tenants whose ids come after one, in order."""
        return await self._read(lambda c: _tenants.page(c, after, limit))

    async def update(
        self, tenant: str, values: Mapping[str, object], identities: Collection[str] | None
    ) -> TenantRow:
        """Change a tenant, its identities too unless they are None.

        Raises TENANT_NOT_FOUND, IDENTITY_TAKEN.
        """
        return await self._write(lambda c: _tenants.update(c, tenant, values, identities))

    async def shut_out(self, tenant: str, now: float) -> None:
        """Disable a tenant, revoke its keys, forget its identities and credentials.

        Raises TENANT_NOT_FOUND.
        """
        await self._write(lambda c: _tenants.shut_out(c, tenant, now))

    async def identified_by(self, identity: str) -> TenantRow | None:
        """The tenant that an identity stands for."""
        return await self._read(lambda c: _tenants.identified_by(c, identity))

    async def create_key(self, row: KeyRow) -> None:
        """Store a new key. Raises TENANT_NOT_FOUND."""
        await self._write(lambda c: _api_keys.create(c, row))

    async def create_first_key(self, tenant: TenantRow, row: KeyRow) -> bool:
        """Store a key, and its tenant where it is missing, unless there is any key; whether it did."""
        return await self._write(lambda c: _api_keys.create_first(c, tenant, row))

    async def key(self, key_id: str) -> tuple[KeyRow, bool] | None:
        """A key, and whether its tenant is disabled."""
        return await self._read(lambda c: _api_keys.find(c, key_id))

    async def keys(self, tenant: str, after: str, limit: int) -> list[KeyRow]:
        """A tenant's keys whose ids come after one, in order."""
        return await self._read(lambda c: _api_keys.page(c, tenant, after, limit))

    async def replace_key(self, key_id: str, ends_at: float, successor: KeyRow) -> KeyRow:
        """Let a key end at a moment and store the one that follows it; gives the old one.

        Raises KEY_NOT_FOUND where it has ended already.
        """
        return await self._write(lambda c: _api_keys.replace(c, key_id, ends_at, successor))

    async def revoke_key(self, key_id: str, now: float) -> KeyRow:
        """Let a key end now, if it has not been revoked before. Raises KEY_NOT_FOUND."""
        return await self._write(lambda c: _api_keys.revoke(c, key_id, now))

    async def used(self, times: Mapping[str, float]) -> None:
        """Note when keys were used last."""
        await self._write(lambda c: _api_keys.used(c, times))

    async def any_key(self) -> bool:
        """Whether there is any key, even one that has ended."""
        return await self._read(_api_keys.any_key)

    async def any_access(self) -> bool:
        """Whether there is a key or an identity."""
        return await self._read(_api_keys.any_access)

    async def _write(self, work: Callable[[sa.Connection], T]) -> T:
        try:
            return await self._database.write(work, _TIMEOUT)
        except (sa.exc.IntegrityError, sqlite3.IntegrityError):
            # Another service stored the same meanwhile: this time it is found before.
            return await self._again(work)

    async def _again(self, work: Callable[[sa.Connection], T]) -> T:
        try:
            return await self._database.write(work, _TIMEOUT)
        except (sa.exc.IntegrityError, sqlite3.IntegrityError) as error:
            raise unavailable(error) from error

    async def _read(self, work: Callable[[sa.Connection], T]) -> T:
        return await self._database.read(work, _TIMEOUT)
