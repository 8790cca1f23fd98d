"""The spares of a service's start."""

from __future__ import annotations

import asyncio
import contextlib

from warmline_service.pool._events import SilentEvents
from warmline_service.worker import SpawnKey


class FirstSpares(SilentEvents):
    """Waits for the spares of the start: until each is up or has failed to come up."""

    def __init__(self, capacity: int, each: int) -> None:
        self._capacity = capacity
        self._each = each
        self._ended = 0
        self._changed = asyncio.Event()

    async def up(self, kinds: int, timeout: float) -> None:
        """Wait for so many kinds, at most `timeout` seconds: without spares starts are cold."""
        wanted = min(self._capacity, kinds * self._each)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout):
                while self._ended < wanted:
                    self._changed.clear()
                    await self._changed.wait()

    def started(self, key: SpawnKey, seconds: float) -> None:
        """One is up."""
        del key, seconds
        self._one_more()

    def start_failed(self, key: SpawnKey) -> None:
        """One did not come up."""
        del key
        self._one_more()

    def _one_more(self) -> None:
        self._ended += 1
        self._changed.set()
