"""What the pool needs of a process, whatever makes it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Protocol

from warmline_service.worker import Exit, Life, SpawnKey


class PooledProcess(Protocol):
    """A process that can be kept, pinged, measured and stopped."""

    @property
    def id(self) -> str:
        """A name for logs."""

    @property
    def key(self) -> SpawnKey:
        """The spawn-time inputs it was made with."""

    @property
    def life(self) -> Life:
        """Its state; only the pool moves it."""

    @property
    def exited(self) -> asyncio.Future[Exit]:
        """Done when it has been reaped."""

    async def ping(self) -> None:
        """Raise when it does not answer in time."""

    def memory_bytes(self) -> int:
        """What its whole tree uses; 0 when gone. May block for milliseconds."""

    async def stop(self) -> None:
        """End it and its tree and clean up, within a bound; may be called again."""


Measure = Callable[[Sequence[PooledProcess]], Awaitable[Sequence[int]]]


async def measure_in_thread(processes: Sequence[PooledProcess]) -> Sequence[int]:
    """Bytes used by each process, read off the loop: the kernel takes milliseconds for each."""
    return await asyncio.to_thread(lambda: [process.memory_bytes() for process in processes])
