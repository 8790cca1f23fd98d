"""How much each tenant keeps stored: summed now and then, and as a rule in no turn's way."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from dataclasses import dataclass
from typing import Protocol

import structlog

from warmline_service.errors import Reason, WarmlineError

_log = structlog.get_logger(__name__)

# A figure counts for so many seconds, or so many times as long as its sum took: that takes 2 % of the time.
_TTL = 10.0
_TIMES = 50
_KEPT = 10_000
_RETRY_AFTER = 60.0


class Measure(Protocol):
    """Sums up what a tenant keeps stored."""

    async def __call__(self, tenant: str) -> int:
        """Bytes. Raises STORAGE_UNAVAILABLE."""
        ...


@dataclass
class _Figure:
    """`until` is loop time in seconds: when it is to be summed again."""

    bytes: int
    until: float


class Stored:
    """Holds tenants to what they may keep; `aclose` at the end.

    A figure that is old is still used while it is below the bound, and another one is summed meanwhile.
    """

    def __init__(self, measure: Measure) -> None:
        self._measure = measure
        self._figures: OrderedDict[str, _Figure] = OrderedDict()
        self._measuring: dict[str, asyncio.Task[_Figure]] = {}
        # Also those whose figure is of no use any more.
        self._tasks: set[asyncio.Task[_Figure]] = set()

    async def check(self, tenant: str, limit: int, adding: int) -> None:
        """Count `adding` bytes as kept; raises QUOTA_EXCEEDED where that is above, STORAGE_UNAVAILABLE."""
        figure = await self._figure(tenant, limit - adding)
        if figure.bytes + adding > limit:
            raise WarmlineError(
                Reason.QUOTA_EXCEEDED,
                f"This tenant may keep {limit} bytes; delete some sessions.",
                metadata={"limit": str(limit), "quota": "storage_bytes"},
                retry_after=_RETRY_AFTER,
            )
        # At once: those that come while this is being stored are held to what it leaves.
        figure.bytes += adding

    async def used(self, tenant: str) -> int:
        """What a tenant keeps, in bytes. Raises STORAGE_UNAVAILABLE."""
        return (await self._figure(tenant, -1)).bytes

    def freed(self, tenant: str) -> None:
        """Something was removed: who is above the bound by what is known is summed up again."""
        # One that is under way may have seen what has gone since.
        self._measuring.pop(tenant, None)
        if (figure := self._figures.get(tenant)) is not None:
            figure.until = 0.0

    async def aclose(self) -> None:
        """Stop summing."""
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks)

    async def _figure(self, tenant: str, most: int) -> _Figure:
        """What is known of a tenant; waited for where nothing is, or that is old and above `most`."""
        figure = self._figures.get(tenant)
        if figure is not None and asyncio.get_running_loop().time() < figure.until:
            return figure
        measuring = self._measuring.get(tenant)
        if measuring is None:
            measuring = asyncio.create_task(self._sum(tenant))
            self._measuring[tenant] = measuring
            self._tasks.add(measuring)
            measuring.add_done_callback(lambda task: self._summed(tenant, task))
        if figure is not None and figure.bytes <= most:
            return figure
        # Others wait for it as well.
        return await asyncio.shield(measuring)

    async def _sum(self, tenant: str) -> _Figure:
        loop = asyncio.get_running_loop()
        begun = loop.time()
        found = await self._measure(tenant)
        now = loop.time()
        return _Figure(found, now + max(_TTL, _TIMES * (now - begun)))

    def _summed(self, tenant: str, task: asyncio.Task[_Figure]) -> None:
        self._tasks.discard(task)
        current = self._measuring.get(tenant) is task
        if current:
            del self._measuring[tenant]
        if task.cancelled():
            return
        if (error := task.exception()) is not None:
            _log.warning("what a tenant keeps was not summed up", tenant=tenant, error=repr(error))
        elif current:
            self._figures[tenant] = task.result()
            self._figures.move_to_end(tenant)
            if len(self._figures) > _KEPT:
                self._figures.popitem(last=False)
