"""Keeps a service's claim to its sessions alive, and what is stored within its bounds."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable

import structlog

from warmline_service.config import RetentionSettings, StoreSettings
from warmline_service.errors import WarmlineError
from warmline_service.store import SessionRow, Store

_log = structlog.get_logger(__name__)

_DAY = 24 * 3600.0
_ROUND_EVERY = 600.0
# What a renewal is given at least, however late it is.
_LEAST = 0.1


class Keeper:
    """Renews the node's lease three times within its time, and looks for what others left unfinished.

    `recover` ends the turns of services that are gone; `fence`, if there is one, is called when this one
    may no longer write, because nobody has heard of it for too long; `remove` deletes a
    session that is past its time.
    """

    def __init__(
        self,
        store: Store,
        settings: StoreSettings,
        retention: RetentionSettings,
        *,
        recover: Callable[[], Awaitable[int]],
        fence: Callable[[], None] | None,
        remove: Callable[[SessionRow], Awaitable[None]],
    ) -> None:
        self._store = store
        self._ttl = settings.lease_ttl
        self._retention = retention
        self._recover = recover
        self._fence = fence
        self._remove = remove
        self._tasks: list[asyncio.Task[None]] = []

    async def start(self) -> None:
        """Claim the node's place; raises STORAGE_UNAVAILABLE."""
        await self._store.renew(self._ttl)
        self._tasks = [
            asyncio.create_task(self._renew(), name="lease-keeper"),
            asyncio.create_task(self._look_after(), name="recovery"),
            asyncio.create_task(self._retain(), name="retention"),
        ]

    async def aclose(self) -> None:
        """Stop; leases are given up by whoever closes the store."""
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks)

    async def _renew(self) -> None:
        loop = asyncio.get_running_loop()
        renewed, fenced = loop.time(), False
        while True:
            await asyncio.sleep(self._ttl / 3)
            began = loop.time()
            # Before anybody else may begin: their clock and ours count from the same renewal.
            until = max(renewed + 2 * self._ttl / 3, began + _LEAST)
            try:
                async with asyncio.timeout_at(until):
                    await self._store.renew(self._ttl)
            except Exception as error:  # noqa: BLE001  # whatever it was, nobody has heard of us
                _log.warning("lease not renewed", error=repr(error), exc_info=_surprise(error))
                late = loop.time() - renewed > self._ttl / 2
                if self._fence is not None and late and not fenced:
                    fenced = True
                    self._fence()
                continue
            renewed, fenced = began, False

    async def _look_after(self) -> None:
        """End what others have left unfinished; by itself, since it may take long."""
        while True:
            await asyncio.sleep(self._ttl / 3)
            try:
                found = await self._recover()
            except Exception as error:  # noqa: BLE001  # the next round may do better
                _log.warning(
                    "unfinished turns not looked for",
                    error=repr(error),
                    exc_info=_surprise(error),
                )
            else:
                if found:
                    _log.info("unfinished turns ended", sessions=found)

    async def _retain(self) -> None:
        while True:
            try:
                await self.retain(time.time())
            except Exception as error:  # noqa: BLE001  # the next round may do better
                _log.warning("retention put off", error=repr(error), exc_info=_surprise(error))
            await asyncio.sleep(_ROUND_EVERY)

    async def retain(self, now: float) -> None:
        """One round: what is past its time, or too much, goes. Raises STORAGE_UNAVAILABLE."""
        keep, store = self._retention, self._store
        await store.forget_keys(now)
        if keep.events_days:
            while rows := await store.expirable(now - keep.events_days * _DAY):
                for row, upto in rows:
                    await store.expire(row, upto)
        if keep.tenant_bytes:
            for tenant, excess in await store.oversize(keep.tenant_bytes):
                await self._shrink(tenant, excess)
        if keep.sessions_days:
            for row in await store.unused(now - keep.sessions_days * _DAY):
                try:
                    await self._remove(row)
                except Exception as error:  # noqa: BLE001  # one must not keep the others
                    _log.warning(
                        "session not removed",
                        session=row.id,
                        error=repr(error),
                        exc_info=_surprise(error),
                    )

    async def _shrink(self, tenant: str, excess: int) -> None:
        """Forget the events of a tenant's oldest turns."""
        while excess > 0 and (oldest := await self._store.oldest_turns(tenant)):
            for row, turn in oldest:
                if excess <= 0:
                    return
                await self._store.expire(row, turn.last_seq)
                excess -= turn.bytes


def _surprise(error: Exception) -> Exception | None:
    """The error, where it is a fault of the service's own: its trace is wanted in the log then."""
    return None if isinstance(error, WarmlineError | TimeoutError) else error
