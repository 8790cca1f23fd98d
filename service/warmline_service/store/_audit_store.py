"""The audit log as others use it: every transaction on it, each within a deadline."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import sqlalchemy as sa

from warmline_service.store import _audit
from warmline_service.store._audit import BASE as BASE
from warmline_service.store._audit import HEAD as HEAD
from warmline_service.store._audit import Extend, Release
from warmline_service.store._database import Database
from warmline_service.store._rows import AuditPage, AuditQuery, AuditRow

T = TypeVar("T")

_TIMEOUT = 15.0


class AuditStore:
    """Rows that are only ever added at the end and removed at the beginning.

    Everything raises STORAGE_UNAVAILABLE while the database cannot be used.
    """

    def __init__(self, database: Database) -> None:
        self._database = database

    async def append(
        self, extend: Extend, doubtful: tuple[int, str] | None = None
    ) -> list[AuditRow]:
        """Extend the log by what `extend` makes of its head and its last row; gives the added rows.

        `extend` may be called more than once. Nothing is added where `doubtful` (seq, hash), a row of an
        earlier try whose outcome is not known, is there. Services on one database wait for each other.
        """
        return await self._database.write(lambda c: _audit.append(c, extend, doubtful), _TIMEOUT)

    async def page(self, after: int, limit: int) -> AuditPage:
        """Rows after a seq, to be verified."""
        return await self._read(lambda c: _audit.page(c, after, limit))

    async def select(self, query: AuditQuery) -> list[AuditRow]:
        """A page of the rows that a query wants."""
        return await self._read(lambda c: _audit.select(c, query))

    async def release(self, before: float, limit: int, agree: Release) -> int:
        """Remove rows from before a moment, the oldest first; gives how many.

        `agree` is given the old base and the rows, and gives the new base, or None where they stay.
        """
        return await self._database.write(
            lambda c: _audit.release(c, before, limit, agree), _TIMEOUT
        )

    async def _read(self, work: Callable[[sa.Connection], T]) -> T:
        return await self._database.read(work, _TIMEOUT)
