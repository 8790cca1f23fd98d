"""What tenants have used, day by day, and what is reserved for their turns."""

from __future__ import annotations

import uuid
from collections.abc import Collection, Sequence
from typing import Any

import sqlalchemy as sa
from msgspec import Struct, structs
from sqlalchemy.dialects import postgresql, sqlite

from warmline_service.store._database import Database, alone
from warmline_service.store._schema import reservations, settlements, usage

_TIMEOUT = 15.0


class Amount(Struct, frozen=True):
    """Tokens, and millionths of a US dollar."""

    tokens: int = 0
    micro_usd: int = 0

    def __add__(self, other: Amount) -> Amount:
        return Amount(self.tokens + other.tokens, self.micro_usd + other.micro_usd)


class UsageRow(Struct, frozen=True):
    """What a tenant has used of a model on a day (UTC, as `2026-11-26`)."""

    tenant: str
    day: str
    model: str
    turns: int = 0
    requests: int = 0
    input: int = 0
    output: int = 0
    cache_read: int = 0
    cache_creation: int = 0
    micro_usd: int = 0

    @property
    def key(self) -> tuple[str, str, str]:
        """What is counted together."""
        return self.tenant, self.day, self.model

    def plus(self, more: UsageRow) -> UsageRow:
        """Both together, under the same key."""
        sums = {name: getattr(self, name) + getattr(more, name) for name in _COUNTS}
        return structs.replace(self, **sums)


class Bounds(Struct, frozen=True):
    """What a tenant may use; None: as much as it likes."""

    tokens_per_day: int | None = None
    micro_usd_per_day: int | None = None
    micro_usd_per_month: int | None = None


class Reservation(Struct, frozen=True):
    """What a turn asks to have kept for it, in place of what it had; `id` names it, "" keeps nothing.

    `day` is the day (UTC) that it is counted on; one that has expired, in Unix time, is no more.
    """

    id: str
    tenant: str
    amount: Amount
    day: str
    now: float
    expires_at: float


class Granted(Struct, frozen=True):
    """What a reservation got; where that is less than it asked for, `exhausted` names the bound."""

    amount: Amount
    exhausted: str = ""


_COUNTS = (
    *("turns", "requests", "input", "output"),
    *("cache_read", "cache_creation", "micro_usd"),
)


class Ledger:
    """The books of what is used. Everything raises STORAGE_UNAVAILABLE."""

    def __init__(self, database: Database, node_id: str) -> None:
        self._database = database
        self._node_id = node_id

    async def reserve(self, wanted: Reservation, bounds: Bounds) -> Granted:
        """Keep an amount for a turn, or what is left of it; one turn of a tenant after the other."""
        return await self._database.write(lambda c: _reserve(c, wanted, bounds), _TIMEOUT)

    async def settle(self, batch: str, used: Sequence[UsageRow], ended: Collection[str]) -> None:
        """Count what was used and give up reservations: all or nothing, and a batch only once.

        A batch that failed may be given again, before any other of this node's.
        """
        node = self._node_id
        await self._database.write(lambda c: _settle(c, (node, batch), used, ended), _TIMEOUT)

    async def usage(self, tenant: str, first: str, last: str) -> list[UsageRow]:
        """What a tenant has used from one day to another, both included."""
        return await self._database.read(lambda c: _usage(c, tenant, first, last), _TIMEOUT)


def new_batch() -> str:
    """Names a batch of settlements."""
    return str(uuid.uuid4())


def _reserve(connection: sa.Connection, wanted: Reservation, bounds: Bounds) -> Granted:
    alone(connection, f"budget of {wanted.tenant}")
    table = reservations
    connection.execute(sa.delete(table).where(table.c.expires_at <= wanted.now))
    kept = connection.execute(
        sa.select(
            sa.func.coalesce(sa.func.sum(table.c.tokens), 0),
            sa.func.coalesce(sa.func.sum(table.c.micro_usd), 0),
        ).where(table.c.tenant == wanted.tenant, table.c.id != wanted.id)
    ).one()
    today = _spent(connection, wanted.tenant, wanted.day, wanted.day)
    month = _spent(connection, wanted.tenant, f"{wanted.day[:7]}-01", wanted.day)
    granted = _granted(wanted.amount, bounds, Amount(*map(int, kept)), (today, month))
    if wanted.id:
        connection.execute(sa.delete(table).where(table.c.id == wanted.id))
        connection.execute(
            sa.insert(table).values(
                id=wanted.id,
                tenant=wanted.tenant,
                tokens=granted.amount.tokens,
                micro_usd=granted.amount.micro_usd,
                expires_at=wanted.expires_at,
            )
        )
    return granted


def _granted(wanted: Amount, bounds: Bounds, kept: Amount, spent: tuple[Amount, Amount]) -> Granted:
    today, month = spent
    tokens, micro_usd, exhausted = wanted.tokens, wanted.micro_usd, ""
    if bounds.tokens_per_day is not None:
        left = max(0, bounds.tokens_per_day - today.tokens - kept.tokens)
        if left < tokens:
            tokens, exhausted = left, "tokens_per_day"
    for name, bound, used in (
        ("usd_per_day", bounds.micro_usd_per_day, today),
        ("usd_per_month", bounds.micro_usd_per_month, month),
    ):
        if bound is not None:
            left = max(0, bound - used.micro_usd - kept.micro_usd)
            if left < micro_usd:
                micro_usd, exhausted = left, name
    return Granted(Amount(tokens, micro_usd), exhausted)


def _spent(connection: sa.Connection, tenant: str, first: str, last: str) -> Amount:
    counted = usage.c.input + usage.c.output + usage.c.cache_creation
    row = connection.execute(
        sa.select(
            sa.func.coalesce(sa.func.sum(counted), 0),
            sa.func.coalesce(sa.func.sum(usage.c.micro_usd), 0),
        ).where(usage.c.tenant == tenant, usage.c.day >= first, usage.c.day <= last)
    ).one()
    return Amount(*map(int, row))


def _settle(
    connection: sa.Connection,
    batch: tuple[str, str],
    used: Sequence[UsageRow],
    ended: Collection[str],
) -> None:
    node_id, batch_id = batch
    insert: Any = _insert(connection)
    done = connection.execute(
        sa.select(settlements.c.batch).where(settlements.c.node_id == node_id)
    ).scalar_one_or_none()
    if done == batch_id:
        return
    connection.execute(
        insert(settlements)
        .values(node_id=node_id, batch=batch_id)
        .on_conflict_do_update(index_elements=["node_id"], set_={"batch": batch_id})
    )
    # In one order, so that two services that count for the same tenants do not wait for each other.
    for each in sorted(used, key=lambda row: row.key):
        add = insert(usage).values(structs.asdict(each))
        sums = {name: usage.c[name] + add.excluded[name] for name in _COUNTS}
        keys = [usage.c.tenant, usage.c.day, usage.c.model]
        connection.execute(add.on_conflict_do_update(index_elements=keys, set_=sums))
    if ended:
        connection.execute(sa.delete(reservations).where(reservations.c.id.in_(ended)))


def _insert(connection: sa.Connection) -> Any:
    """The dialect's `insert`, which knows ON CONFLICT."""
    return sqlite.insert if connection.dialect.name == "sqlite" else postgresql.insert


def _usage(connection: sa.Connection, tenant: str, first: str, last: str) -> list[UsageRow]:
    rows = connection.execute(
        sa.select(usage)
        .where(usage.c.tenant == tenant, usage.c.day >= first, usage.c.day <= last)
        .order_by(usage.c.day, usage.c.model)
    )
    return [UsageRow(**row._mapping) for row in rows]
