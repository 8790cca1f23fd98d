"""How long to wait before connecting again."""

from __future__ import annotations

import asyncio
import random

_FIRST = 0.1
_LAST = 2.0


class Backoff:
    """Waits longer each time, by chance, until `timeout` seconds have passed since it was made."""

    def __init__(self, timeout: float) -> None:
        self._until = asyncio.get_running_loop().time() + timeout
        self._delay = _FIRST

    async def wait(self, at_least: float | None = None) -> bool:
        """Wait before the next try; False where there is no time for one any more."""
        delay = random.uniform(self._delay / 2, self._delay)  # noqa: S311  # spreads clients, protects nothing
        delay = max(delay, at_least or 0.0)
        self._delay = min(2 * self._delay, _LAST)
        if asyncio.get_running_loop().time() + delay > self._until:
            return False
        await asyncio.sleep(delay)
        return True
