"""The vault's root key, as it is stored: one for all services on a database."""

from __future__ import annotations

import sqlalchemy as sa

from warmline_service.store._database import Database
from warmline_service.store._schema import vault_roots

_TIMEOUT = 15.0
_ONLY = 1


class Roots:
    """Keeps the root key, wrapped. Everything raises STORAGE_UNAVAILABLE."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def offer_root(self, wrapped: bytes) -> bytes:
        """The one that is kept: this one, if there was none."""
        return await self._database.write(lambda c: _offer(c, wrapped), _TIMEOUT)

    async def replace_root(self, old: bytes, new: bytes) -> bool:
        """Keep another in place of one; False where that was not the one."""
        return await self._database.write(lambda c: _replace(c, old, new), _TIMEOUT)


def _offer(connection: sa.Connection, wrapped: bytes) -> bytes:
    # Of two services that start at the same time the second one waits here, and finds the first one's.
    add = sa.text("INSERT INTO vault_roots (id, wrapped) VALUES (:id, :new) ON CONFLICT DO NOTHING")
    connection.execute(add, {"id": _ONLY, "new": wrapped})
    return bytes(connection.execute(sa.select(vault_roots.c.wrapped)).scalar_one())


def _replace(connection: sa.Connection, old: bytes, new: bytes) -> bool:
    is_old = sa.and_(vault_roots.c.id == _ONLY, vault_roots.c.wrapped == old)
    return bool(
        connection.execute(sa.update(vault_roots).where(is_old).values(wrapped=new)).rowcount
    )
