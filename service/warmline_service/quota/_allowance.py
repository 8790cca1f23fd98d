"""What one turn may use: reserved before it begins, extended as it goes on, settled at its end."""

from __future__ import annotations

import time
import uuid
from collections.abc import Mapping

from warmline_service.errors import Reason, WarmlineError
from warmline_service.quota._periods import day_of, until_next_month, until_tomorrow
from warmline_service.quota._prices import Prices, Tokens, counted
from warmline_service.store import Amount, Bounds, Ledger, Reservation

# What is kept for a turn at a time. Turns of a tenant that run side by side share what is left, so a
# large piece would refuse one for the sake of what another does not need; a small one asks the
# database more often.
PIECE = Amount(tokens=50_000, micro_usd=100_000)
# Longer than any turn: what a service that was killed had reserved is free again then.
_HELD = 2 * 3600.0


class Allowance:
    """Bounds one turn by its tenant's budget; `used` is always what the turn has used in all."""

    def __init__(self, ledger: Ledger, prices: Prices, bounds: Bounds, tenant: str) -> None:
        # Its own, not the turn's: what the turn had in an earlier process may be settled only after this
        # has been reserved, and must not take it along.
        self.id = str(uuid.uuid4())
        self._ledger = ledger
        self._prices = prices
        self._bounds = bounds
        self._tenant = tenant
        self._granted = Amount()

    async def begin(self) -> None:
        """Reserve the first piece; raises BUDGET_EXCEEDED where nothing is left, STORAGE_UNAVAILABLE."""
        await self._reserve(Amount())

    def covers(self, used: Mapping[str, Tokens]) -> bool:
        """Whether what was used is within what was reserved."""
        return self._within(self._amount(used))

    async def cover(self, used: Mapping[str, Tokens]) -> None:
        """Reserve more where the turn has come to the end of what it has.

        Raises BUDGET_EXCEEDED where nothing is left, STORAGE_UNAVAILABLE.
        """
        amount = self._amount(used)
        if not self._within(amount):
            await self._reserve(amount)

    async def _reserve(self, used: Amount) -> None:
        now = time.time()
        reservation = Reservation(
            self.id, self._tenant, used + PIECE, day_of(now), now, now + _HELD
        )
        granted = await self._ledger.reserve(reservation, self._bounds)
        self._granted = granted.amount
        if granted.exhausted and not self._within(used):
            raise exceeded(granted.exhausted, now)

    def _within(self, used: Amount) -> bool:
        """Something must be left: the next request uses more."""
        granted, bounds = self._granted, self._bounds
        by_tokens = bounds.tokens_per_day is None or used.tokens < granted.tokens
        unpriced = bounds.micro_usd_per_day is None and bounds.micro_usd_per_month is None
        return by_tokens and (unpriced or used.micro_usd < granted.micro_usd)

    def _amount(self, used: Mapping[str, Tokens]) -> Amount:
        return Amount(
            sum(map(counted, used.values())),
            sum(self._prices.cost(model, tokens) for model, tokens in used.items()),
        )


def exceeded(bound: str, now: float) -> WarmlineError:
    """BUDGET_EXCEEDED, by the name of the bound in the policy."""
    monthly = bound == "usd_per_month"
    return WarmlineError(
        Reason.BUDGET_EXCEEDED,
        f"The tenant's budget of this {'month' if monthly else 'day'} is used up ({bound}).",
        metadata={"quota": bound},
        retry_after=until_next_month(now) if monthly else until_tomorrow(now),
    )
