"""Who waits: first come first served within a tenant, in turn over tenants."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator

from warmline_service.pool._want import Waiter


class WaitQueue:
    """The waiters; at most one for a session, and bounded over all and for each tenant."""

    def __init__(self, limit: int, limit_per_tenant: int) -> None:
        self._limit = limit
        self._limit_per_tenant = limit_per_tenant
        # The order of tenants is the order of their turns; within one, the order of arrival.
        self._lines: dict[str, dict[str, Waiter]] = {}
        self._sessions: set[str] = set()

    def add(self, waiter: Waiter) -> None:
        """Join the end of the tenant's line."""
        self._lines.setdefault(waiter.want.tenant, {})[waiter.want.session_id] = waiter
        self._sessions.add(waiter.want.session_id)

    def remove(self, waiter: Waiter) -> bool:
        """Leave, if still there."""
        line = self._lines.get(waiter.want.tenant, {})
        if line.get(waiter.want.session_id) is not waiter:
            return False
        del line[waiter.want.session_id]
        self._sessions.discard(waiter.want.session_id)
        if not line:
            del self._lines[waiter.want.tenant]
        return True

    def served(self, waiter: Waiter) -> None:
        """Leave with a process: the tenant's next turn comes after everybody else's.

        One that never had to wait uses up nobody's turn.
        """
        if self.remove(waiter) and waiter.want.tenant in self._lines:
            self._lines[waiter.want.tenant] = self._lines.pop(waiter.want.tenant)

    def in_order(self) -> Iterator[Waiter]:
        """All waiters in the order in which they are to be served, as of now."""
        lines = deque(iter(tuple(line.values())) for line in self._lines.values())
        while lines:
            line = lines.popleft()
            waiter = next(line, None)
            if waiter is not None:
                yield waiter
                lines.append(line)

    def first(self, accepts: Callable[[Waiter], bool]) -> Waiter | None:
        """Who gets a process: the tenant whose turn is first, of it the one that came first."""
        waiters = (waiter for line in self._lines.values() for waiter in line.values())
        return next(filter(accepts, waiters), None)

    def of_tenant(self, tenant: str) -> int:
        """How many of a tenant wait."""
        return len(self._lines.get(tenant, ()))

    def exceeded(self, tenant: str, own_limit: int | None) -> int | None:
        """The limit that one more waiter of a tenant would break, or None."""
        if len(self._sessions) >= self._limit:
            return self._limit
        most = min(self._limit_per_tenant, own_limit or self._limit_per_tenant)
        return most if self.of_tenant(tenant) >= most else None

    def __contains__(self, session_id: str) -> bool:
        return session_id in self._sessions

    def __len__(self) -> int:
        return len(self._sessions)
