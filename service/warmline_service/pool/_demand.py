"""How many spares of a kind to keep: as many as lately came while a spare was being made."""

from __future__ import annotations

import math
from collections import deque

HALF_LIFE = 60.0


class Demand:
    """A decaying maximum of arrivals within the time that it takes to replace a spare."""

    def __init__(self, least: int, most: int) -> None:
        self._least = least
        self._most = max(least, most)
        self._peak = 0.0
        self._peak_at = 0.0
        self._rests_until = 0.0
        # More than `most` arrivals cannot raise the target further.
        self._arrivals: deque[float] = deque(maxlen=max(1, self._most))

    def arrived(self, now: float, spawn_seconds: float) -> None:
        """Somebody came who could have used a spare that takes `spawn_seconds` to make."""
        window = max(1.0, 2 * spawn_seconds)
        self._arrivals.append(now)
        together = sum(now - at <= window for at in self._arrivals)
        self._peak = max(self._level(now), float(together))
        self._peak_at = now

    def taken(self, now: float, rest: float) -> float | None:
        """A spare has been given away: from when on it may be replaced; None where it may be now.

        `rest` is in seconds. While one rest lasts there is no other, and where more spares than usual are
        wanted there is none.
        """
        if rest <= 0 or now < self._rests_until or self.target(now) > max(1, self._least):
            return None
        self._rests_until = now + rest
        return self._rests_until

    def rests(self, now: float) -> bool:
        """Whether nothing is to be started, so that who took a spare has the machine for a moment."""
        return now < self._rests_until and self.target(now) <= max(1, self._least)

    def target(self, now: float) -> int:
        """Spares to keep now."""
        return max(self._least, min(self._most, int(self._level(now) + 0.5)))

    def _level(self, now: float) -> float:
        return self._peak * math.exp2((self._peak_at - now) / HALF_LIFE)
