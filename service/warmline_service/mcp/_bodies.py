"""Bodies of a caller's server: each has a bound in bytes and in time, or in bytes a second."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable

import httpx2

# What a stream of events may send in a second, and what each event counts as beside its bytes: taking one
# apart costs the service about as much.
_RATE = 4 * 1024 * 1024
_EVENT = 1024


class TooMuch(httpx2.StreamError):
    """The server sends more than it may. Of one answer alone: the library makes it that request's error."""


class Bounded(httpx2.AsyncByteStream):
    """At most so many bytes, until a moment of the loop's time."""

    def __init__(self, inner: httpx2.AsyncByteStream, most: int, until: float) -> None:
        self._inner = inner
        self._left = most
        self._until = until

    async def __aiter__(self) -> AsyncIterator[bytes]:
        """The pieces; raises TooMuch."""
        pieces = aiter(self._inner)
        while True:
            try:
                async with asyncio.timeout_at(self._until):
                    piece = await anext(pieces)
            except StopAsyncIteration:
                return
            except TimeoutError:
                raise TooMuch("it takes too long to answer") from None
            self._left -= len(piece)
            if self._left < 0:
                raise TooMuch("it sends more than it may")
            yield piece

    async def aclose(self) -> None:
        """Read no more."""
        await self._inner.aclose()


class Paced(httpx2.AsyncByteStream):
    """A stream of events without an end, read no faster than it can be dealt with; then it is told of."""

    def __init__(
        self, inner: httpx2.AsyncByteStream, burst: int, on_end: Callable[[], None] | None
    ) -> None:
        self._inner = inner
        self._burst = burst
        self._on_end = on_end

    async def __aiter__(self) -> AsyncIterator[bytes]:
        """The pieces."""
        loop = asyncio.get_running_loop()
        left, last = float(self._burst), loop.time()
        try:
            async for piece in self._inner:
                yield piece
                now = loop.time()
                left = min(self._burst, left + (now - last) * _RATE)
                left, last = left - len(piece) - _EVENT * piece.count(b"\n\n"), now
                if left < 0:
                    await asyncio.sleep(-left / _RATE)
        finally:
            if self._on_end is not None:
                self._on_end()

    async def aclose(self) -> None:
        """Read no more."""
        await self._inner.aclose()
