"""Who waits: first come first served within a tenant, or a group of them, in turn over all of those."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator

from warmline_service.pool._want import Waiter, Want


class WaitQueue:
    """The waiters; at most one for a session, and bounded over all and for each line of them."""

    def __init__(self, limit: int, limit_per_line: int) -> None:
        self._limit = limit
        self._limit_per_line = limit_per_line
        # The order of lines is the order of their turns; within one, the order of arrival.
        self._lines: dict[str, dict[str, Waiter]] = {}
        self._sessions: set[str] = set()

    def add(self, waiter: Waiter) -> None:
        """Join the end of the line."""
        self._lines.setdefault(waiter.want.line, {})[waiter.want.session_id] = waiter
        self._sessions.add(waiter.want.session_id)

    def remove(self, waiter: Waiter) -> bool:
        """Leave, if still there."""
        line = self._lines.get(waiter.want.line, {})
        if line.get(waiter.want.session_id) is not waiter:
            return False
        del line[waiter.want.session_id]
        self._sessions.discard(waiter.want.session_id)
        if not line:
            del self._lines[waiter.want.line]
        return True

    def served(self, waiter: Waiter) -> None:
        """Leave with a process: the line's next turn comes after every other's.

        One that never had to wait uses up nobody's turn.
        """
        if self.remove(waiter) and waiter.want.line in self._lines:
            self._lines[waiter.want.line] = self._lines.pop(waiter.want.line)

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
        """Who gets a process: the line whose turn is first, of it the one that came first."""
        waiters = (waiter for line in self._lines.values() for waiter in line.values())
        return next(filter(accepts, waiters), None)

    def of_tenant(self, want: Want) -> int:
        """How many of its tenant wait."""
        line = self._lines.get(want.line, {})
        return sum(waiter.want.tenant == want.tenant for waiter in line.values())

    def exceeded(self, want: Want) -> int | None:
        """The limit that one more waiter would break, or None."""
        own = want.share.waiting
        if len(self._sessions) >= self._limit:
            return self._limit
        if own is not None and own < self._limit_per_line and self.of_tenant(want) >= own:
            return own
        line = self._lines.get(want.line, {})
        return self._limit_per_line if len(line) >= self._limit_per_line else None

    def __contains__(self, session_id: str) -> bool:
        return session_id in self._sessions

    def __len__(self) -> int:
        return len(self._sessions)
