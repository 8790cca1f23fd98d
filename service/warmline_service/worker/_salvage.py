"""Letting somebody save what a slot holds before it is wiped."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import structlog

from warmline_service.worker._slot import Slot

_log = structlog.get_logger(__name__)

_TIMEOUT = 30.0
# What does not heed its cancellation is left behind.
_LAST_WORDS = 1.0

Salvage = Callable[[Slot], Awaitable[None]]


async def offer(salvage: Salvage, slot: Slot, timeout: float = _TIMEOUT) -> None:
    """Let `salvage` take what it wants of a slot, for `timeout` seconds; what goes wrong is logged."""
    task = asyncio.ensure_future(salvage(slot))
    try:
        await asyncio.wait({task}, timeout=timeout)
    finally:
        if not task.done():
            task.cancel()
            await asyncio.wait({task}, timeout=_LAST_WORDS)
    if not task.done() or task.cancelled():
        _log.error("slot not salvaged in time", slot=slot.id, seconds=timeout)
    elif (error := task.exception()) is not None:
        _log.error("slot could not be salvaged", slot=slot.id, exc_info=error)
