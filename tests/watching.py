"""How the tests watch child processes on Python 3.11: as Python 3.12 does, each on the loop that began it."""

import asyncio
import os
from collections.abc import Callable
from typing import TypeVarTuple

Ts = TypeVarTuple("Ts")


class EachLoopsOwn(asyncio.PidfdChildWatcher):
    """Python's own is one loop's at a time; here a service may run beside the loop of a test."""

    def is_active(self) -> bool:
        """Always: it needs no loop of its own."""
        return True

    def attach_loop(self, loop: asyncio.AbstractEventLoop | None) -> None:
        """It needs none."""

    def add_child_handler(
        self, pid: int, callback: Callable[[int, int, *Ts], object], *args: *Ts
    ) -> None:
        """Call back when the process has ended, on the loop that runs now."""
        loop, pidfd = asyncio.get_running_loop(), os.pidfd_open(pid)

        def ended() -> None:
            loop.remove_reader(pidfd)
            _, status = os.waitpid(pid, 0)
            os.close(pidfd)
            callback(pid, os.waitstatus_to_exitcode(status), *args)

        loop.add_reader(pidfd, ended)
