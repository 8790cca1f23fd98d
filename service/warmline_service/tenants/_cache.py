"""What was looked up a moment ago, so that a call does not wait for the database."""

from __future__ import annotations

import asyncio
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from typing import Generic, NamedTuple, TypeVar

from warmline_service.errors import Reason, WarmlineError

T = TypeVar("T")

_MOST_LOADING = 256
_RETRY_AFTER = 1.0


class _Kept(NamedTuple, Generic[T]):
    value: T | None
    until: float


class TtlCache(Generic[T]):
    """Answers of `load` by name, each for `ttl` seconds; of those found, and of those not, `size` at most.

    They are kept apart: names that somebody makes up push out nobody else's. `get` raises QUEUE_FULL
    where as many names are being asked for as there may be.
    """

    def __init__(
        self,
        load: Callable[[str], Awaitable[T | None]],
        *,
        ttl: float,
        size: int,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._load = load
        self._ttl = ttl
        self._size = size
        self._clock = clock
        self._found: OrderedDict[str, _Kept[T]] = OrderedDict()
        self._absent: OrderedDict[str, _Kept[T]] = OrderedDict()
        self._loading: dict[str, asyncio.Future[None]] = {}
        self._generation = 0

    async def get(self, name: str) -> T | None:
        """What stands behind a name; asked once at a time, however many want it. Raises as `load` does."""
        while (kept := self._fresh(name)) is None:
            if (other := self._loading.get(name)) is not None:
                # Without giving it up when we are given up; should it fail, we ask ourselves.
                await asyncio.shield(other)
            else:
                await self._fetch(name)
        return kept.value

    def forget(self) -> None:
        """Something has changed: ask again, also where an answer is on its way."""
        self._generation += 1
        self._found.clear()
        self._absent.clear()

    def _fresh(self, name: str) -> _Kept[T] | None:
        for kept in (self._found.get(name), self._absent.get(name)):
            if kept is not None and self._clock() < kept.until:
                return kept
        return None

    async def _fetch(self, name: str) -> None:
        if len(self._loading) >= _MOST_LOADING:
            text = "Too many callers that nobody knows yet come at once."
            raise WarmlineError(Reason.QUEUE_FULL, text, retry_after=_RETRY_AFTER)
        generation = self._generation
        done = self._loading[name] = asyncio.get_running_loop().create_future()
        try:
            value = await self._load(name)
        finally:
            del self._loading[name]
            done.set_result(None)
        if generation == self._generation:
            self._keep(name, value)

    def _keep(self, name: str, value: T | None) -> None:
        self._found.pop(name, None)
        self._absent.pop(name, None)
        place = self._found if value is not None else self._absent
        place[name] = _Kept(value, self._clock() + self._ttl)
        if len(place) > self._size:
            place.popitem(last=False)
