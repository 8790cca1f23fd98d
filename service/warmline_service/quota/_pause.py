"""Slows down who asks for more than it may have: even a refusal costs the service something."""

from __future__ import annotations

import asyncio

from warmline_service.errors import WarmlineError

# As long as `RetryInfo` says at the least: a caller that heeds it never notices. One that does not makes
# one request a second on each stream, in place of a thousand.
_PAUSE = 1.0


async def slow_down(error: WarmlineError) -> None:
    """Wait a moment where a tenant was refused for one of its own bounds; its next request waits behind.

    With it one tenant's flood of messages and streams leaves others what they had: see docs/benchmarks.md.
    """
    if "quota" in error.metadata:
        await asyncio.sleep(_PAUSE)
