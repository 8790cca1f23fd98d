"""Slows down who asks for more than it may have: even a refusal costs the service something."""

from __future__ import annotations

import asyncio
import random

from warmline_service.errors import WarmlineError

# In seconds: about as long as `RetryInfo` says at the least, so that a caller that heeds it hardly notices.
# One that does not makes one request a second on each stream, in place of a thousand. Who was refused at
# once is not answered at once, or all would come again at once, too.
_SHORTEST, _LONGEST = 0.5, 1.5


async def slow_down(error: WarmlineError) -> None:
    """Wait a moment where a tenant was refused for one of its own bounds; its next request waits behind.

    With it one tenant's flood of messages and streams leaves others what they had: see docs/benchmarks.md.
    """
    if "quota" in error.metadata:
        pause = random.uniform(_SHORTEST, _LONGEST)  # noqa: S311  # no secret
        await asyncio.sleep(pause)
