"""Stored model credentials as others use them: every transaction on them, each within a deadline."""

from __future__ import annotations

import sqlite3

import sqlalchemy as sa

from warmline_service.store import _credentials
from warmline_service.store._database import Database, unavailable
from warmline_service.store._rows import CredentialRow

# A model request waits for it.
_TIMEOUT = 5.0


class CredentialStore:
    """Model credentials by tenant and name, sealed by whoever gives them.

    Everything raises STORAGE_UNAVAILABLE while the database cannot be used.
    """

    def __init__(self, database: Database) -> None:
        self._database = database

    async def put(self, row: CredentialRow) -> CredentialRow:
        """Store a credential in place of the one by its name; gives it as it is stored."""
        try:
            return await self._put(row)
        except (sa.exc.IntegrityError, sqlite3.IntegrityError):
            pass  # Another service stored the same meanwhile, or another default: now it is found before.
        try:
            return await self._put(row)
        except (sa.exc.IntegrityError, sqlite3.IntegrityError) as error:
            raise unavailable(error) from error

    async def find(self, tenant: str, name: str) -> CredentialRow | None:
        """The tenant's credential by this name; with an empty one its default."""
        return await self._database.read(lambda c: _credentials.find(c, tenant, name), _TIMEOUT)

    async def page(self, tenant: str, after: str, limit: int) -> list[CredentialRow]:
        """A tenant's credentials whose names come after one, in order."""
        return await self._database.read(
            lambda c: _credentials.page(c, tenant, after, limit), _TIMEOUT
        )

    async def remove(self, tenant: str, name: str) -> None:
        """Forget one. Raises CREDENTIAL_NOT_FOUND."""
        await self._database.write(lambda c: _credentials.remove(c, tenant, name), _TIMEOUT)

    async def any_stored(self) -> bool:
        """Whether any tenant has one."""
        return await self._database.read(_credentials.any_stored, _TIMEOUT)

    async def claim(self, row: CredentialRow, now: float, until: float) -> bool:
        """Take it upon us to refresh it until a moment; False where others have, or it is another by now."""
        return await self._database.write(
            lambda c: _credentials.claim(c, row, now, until), _TIMEOUT
        )

    async def fail(self, row: CredentialRow, failure: str, until: float) -> None:
        """Nobody tries again before a moment, unless it is another by now."""
        await self._database.write(lambda c: _credentials.fail(c, row, failure, until), _TIMEOUT)

    async def refresh(self, before: CredentialRow, row: CredentialRow) -> bool:
        """Store it with another secret; False where it is another already, or has been removed."""
        return await self._database.write(lambda c: _credentials.refresh(c, before, row), _TIMEOUT)

    async def _put(self, row: CredentialRow) -> CredentialRow:
        return await self._database.write(lambda c: _credentials.put(c, row), _TIMEOUT)
