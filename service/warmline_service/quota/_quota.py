"""The one door to what tenants may use: calls, turns side by side, what is stored, and money."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import NamedTuple

from warmline_service.config import LimitSettings, TenantPolicy
from warmline_service.quota._allowance import Allowance, exceeded
from warmline_service.quota._books import Books
from warmline_service.quota._periods import day_of, until_next_month, until_tomorrow
from warmline_service.quota._policies import Policies
from warmline_service.quota._prices import Prices, Tokens, counted
from warmline_service.quota._rates import Rates
from warmline_service.quota._stored import Measure, Stored
from warmline_service.quota._turns import Place, Turns
from warmline_service.store import Amount, Bounds, Ledger, Reservation, UsageRow

_MICRO = 1_000_000


class Budget(NamedTuple):
    """A bound on what a tenant uses, by its name in the policy; `resets_at` is Unix time, None: never."""

    name: str
    limit: float
    used: float
    resets_at: float | None


class Quota:
    """Holds each tenant to its policy. `start` first, `aclose` last."""

    def __init__(
        self,
        limits: LimitSettings,
        policies: Policies,
        rates: Rates,
        ledger: Ledger,
        prices: Prices,
        measure: Measure,
    ) -> None:
        self._limits = limits
        self._policies = policies
        self._rates = rates
        self._ledger = ledger
        self._prices = prices
        self._turns = Turns()
        self._stored = Stored(measure)
        self._books = Books(ledger)

    def start(self) -> None:
        """Begin to write what is used."""
        self._books.start()

    async def aclose(self) -> None:
        """Write what is left, and close what is open."""
        await self._books.aclose()
        await self._stored.aclose()
        await self._rates.aclose()

    async def policy(self, tenant: str) -> TenantPolicy:
        """What a tenant may have."""
        return await self._policies.of(tenant)

    async def sessions(self, tenant: str) -> int:
        """How many sessions a tenant may keep."""
        own = (await self._policies.of(tenant)).sessions
        return min(own or self._limits.sessions_per_tenant, self._limits.sessions_per_tenant)

    async def streams(self, tenant: str) -> int:
        """How many streams a tenant may have open."""
        own = (await self._policies.of(tenant)).open_streams
        return min(own or self._limits.streams_per_tenant, self._limits.streams_per_tenant)

    @property
    def own_credential_streams(self) -> int:
        """How many all may have open together who come by a credential of their own."""
        return self._limits.own_credential_streams

    async def keep(self, tenant: str, adding: int = 0) -> None:
        """Let a tenant store more, `adding` bytes as far as that is known.

        Raises QUOTA_EXCEEDED, STORAGE_UNAVAILABLE.
        """
        most = (await self._policies.of(tenant)).storage_bytes
        if most is not None:
            await self._stored.check(tenant, most, adding)

    def freed(self, tenant: str) -> None:
        """Something that a tenant kept was removed."""
        self._stored.freed(tenant)

    async def request(self, tenant: str) -> None:
        """Count a call, or a further message of one; raises RATE_LIMITED."""
        policy = await self._policies.of(tenant)
        if policy.requests_per_minute is not None:
            await self._rates.hit(tenant, policy.requests_per_minute)

    async def admit(self, tenant: str) -> Place:
        """Take a turn on; raises QUOTA_EXCEEDED, BUDGET_EXCEEDED, STORAGE_UNAVAILABLE."""
        policy = await self._policies.of(tenant)
        place = self._turns.take(tenant, policy.concurrent_turns)
        try:
            await self.keep(tenant)
            await self._check(tenant, _bounds(policy))
        except BaseException:
            place.release()
            raise
        return place

    async def allow(self, tenant: str) -> Allowance | None:
        """What a turn may use in one process, with its first piece reserved; None where nothing bounds it.

        Raises BUDGET_EXCEEDED, STORAGE_UNAVAILABLE.
        """
        bounds = _bounds(await self._policies.of(tenant))
        if bounds == _BOUNDLESS:
            return None
        allowance = Allowance(self._ledger, self._prices, bounds, tenant)
        await allowance.begin()
        return allowance

    def settle(
        self, tenant: str, used: Mapping[str, Tokens], requests: int, allowance: Allowance | None
    ) -> None:
        """Count what a turn has used in a process, by model; `requests` are those to the model."""
        day = day_of(time.time())
        rows = []
        for index, (model, tokens) in enumerate(used.items()):
            counts = tokens.input, tokens.output, tokens.cache_read, tokens.cache_creation
            cost = self._prices.cost(model, tokens)
            # Those of the turn as a whole stand in one of its rows.
            turns, asked = (1, requests) if index == 0 else (0, 0)
            rows.append(UsageRow(tenant, day, model, turns, asked, *counts, cost))
        self._books.count(rows, allowance.id if allowance is not None else "")

    async def usage(self, tenant: str, first: str, last: str) -> list[UsageRow]:
        """What a tenant has used from one day (UTC) to another. Raises STORAGE_UNAVAILABLE."""
        return await self._ledger.usage(tenant, first, last)

    async def budgets(self, tenant: str) -> list[Budget]:
        """The bounds of a tenant and what is used of each. Raises STORAGE_UNAVAILABLE."""
        policy, now = await self._policies.of(tenant), time.time()
        today = day_of(now)
        rows = await self._ledger.usage(tenant, f"{today[:7]}-01", today)
        daily = [row for row in rows if row.day == today]
        tokens = sum(map(counted, daily))
        dollars, monthly = (sum(row.micro_usd for row in each) / _MICRO for each in (daily, rows))
        tomorrow, next_month = now + until_tomorrow(now), now + until_next_month(now)
        kept = 0 if policy.storage_bytes is None else await self._stored.used(tenant)
        bounds = (
            ("tokens_per_day", policy.tokens_per_day, tokens, tomorrow),
            ("usd_per_day", policy.usd_per_day, dollars, tomorrow),
            ("usd_per_month", policy.usd_per_month, monthly, next_month),
            ("storage_bytes", policy.storage_bytes, kept, None),
        )
        return [Budget(name, bound, *rest) for name, bound, *rest in bounds if bound is not None]

    async def written(self) -> None:
        """Wait until all that was settled is stored."""
        await self._books.written()

    async def _check(self, tenant: str, bounds: Bounds) -> None:
        """Whether anything is left of the budgets, without keeping any of it."""
        if bounds == _BOUNDLESS:
            return
        now = time.time()
        nothing = Reservation("", tenant, Amount(1, 1), day_of(now), now, now)
        granted = await self._ledger.reserve(nothing, bounds)
        if granted.exhausted:
            raise exceeded(granted.exhausted, now)


_BOUNDLESS = Bounds()


def _bounds(policy: TenantPolicy) -> Bounds:
    return Bounds(policy.tokens_per_day, _micro(policy.usd_per_day), _micro(policy.usd_per_month))


def _micro(dollars: float | None) -> int | None:
    return None if dollars is None else round(dollars * _MICRO)
