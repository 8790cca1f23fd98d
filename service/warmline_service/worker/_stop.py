"""The one ladder by which a process is stopped; each rung has the same deadline."""

from __future__ import annotations

import signal
from typing import Protocol


class Stoppable(Protocol):
    """What the ladder needs of a process."""

    def close_stdin(self) -> None:
        """Let it see the end of its input."""

    def signal_group(self, number: signal.Signals) -> None:
        """Signal it and its process group."""

    async def gone(self, timeout: float) -> bool:
        """Whether it has been reaped, waiting for that at most `timeout` seconds."""
        ...


async def stop_by_ladder(child: Stoppable, timeout: float) -> str | None:
    """Close stdin, wait, TERM, wait, KILL, wait: the rung that did it, None if none did.

    `timeout` is the wait after each rung, in seconds. What left the process group is not reached.
    """
    child.close_stdin()
    if await child.gone(timeout):
        return "stdin"
    child.signal_group(signal.SIGTERM)
    if await child.gone(timeout):
        return "term"
    child.signal_group(signal.SIGKILL)
    return "kill" if await child.gone(timeout) else None
