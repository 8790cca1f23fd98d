"""How many turns a tenant has under way."""

from __future__ import annotations

from collections import Counter

from warmline_service.errors import Reason, WarmlineError


class Place:
    """A turn's place among those of its tenant, until it is given up."""

    def __init__(self, counts: Counter[str], tenant: str) -> None:
        self._counts = counts
        self._tenant = tenant
        self._held = True
        counts[tenant] += 1

    def release(self) -> None:
        """Give it up. Idempotent."""
        if not self._held:
            return
        self._held = False
        self._counts[self._tenant] -= 1
        if not self._counts[self._tenant]:
            del self._counts[self._tenant]


class Turns:
    """Counts the turns of each tenant in this service."""

    def __init__(self) -> None:
        self._counts: Counter[str] = Counter()

    def __getitem__(self, tenant: str) -> int:
        """How many a tenant has."""
        return self._counts[tenant]

    def take(self, tenant: str, limit: int | None) -> Place:
        """One more; raises QUOTA_EXCEEDED where the tenant has `limit` of them."""
        if limit is not None and self._counts[tenant] >= limit:
            raise WarmlineError(
                Reason.QUOTA_EXCEEDED,
                f"This tenant has {limit} turns under way already.",
                metadata={"limit": str(limit), "quota": "concurrent_turns"},
                retry_after=1.0,
            )
        return Place(self._counts, tenant)
