"""When keys were used last: noted by the call, written by a task of its own."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable

import structlog

from warmline_service.errors import WarmlineError
from warmline_service.store import TenantStore

_log = structlog.get_logger(__name__)

# A key's use is written at most so often, and all that was noted meanwhile at most every `_PAUSE`.
_EACH = 60.0
_PAUSE = 5.0
_STOP_TIMEOUT = 5.0
# More keys than this in a minute: the rest is noted in the next.
_MOST = 10_000


class LastUse:
    """Notes the use of keys of the store. `start` first, `aclose` last."""

    def __init__(self, store: TenantStore, now: Callable[[], float] = time.time) -> None:
        self._store = store
        self._now = now
        self._written: dict[str, float] = {}
        self._pending: dict[str, float] = {}
        self._noted = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin to write."""
        self._task = asyncio.create_task(self._run())

    def note(self, key_id: str) -> None:
        """A key is used now."""
        now = self._now()
        if now - self._written.get(key_id, 0.0) < _EACH:
            return
        if len(self._written) >= _MOST:
            self._written = {key: at for key, at in self._written.items() if now - at < _EACH}
            if len(self._written) >= _MOST:
                return
        self._written[key_id] = self._pending[key_id] = now
        self._noted.set()

    async def aclose(self) -> None:
        """Write what is left, and end."""
        if self._task is None:
            return
        self._task.cancel()
        await asyncio.wait({self._task})
        self._task = None
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_STOP_TIMEOUT):
                await self._write()

    async def _run(self) -> None:
        while True:
            await self._noted.wait()
            self._noted.clear()
            await self._write()
            await asyncio.sleep(_PAUSE)

    async def _write(self) -> None:
        times, self._pending = self._pending, {}
        if not times:
            return
        try:
            await self._store.used(times)
        except WarmlineError as error:
            # Nothing depends on it: the next use is written again.
            _log.warning("use of keys not noted", keys=len(times), reason=error.reason.value)
