"""The output of a process, heard as soon as there is some."""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import Callable

# As much as a pipe holds.
READ_BYTES = 64 * 1024


class Output:
    """The reading end of a pipe, on the event loop. It is always read: nobody can make it wait.

    Read in the loop's own callback: a StreamReader takes two more rounds of the loop and a task's
    wake-up for each line, which at many slow streams is a good part of what the service does.
    """

    def __init__(self, fd: int) -> None:
        os.set_blocking(fd, False)
        self._fd = fd
        self._loop = asyncio.get_running_loop()
        self.ended: asyncio.Future[None] = self._loop.create_future()

    def listen(self, hear: Callable[[bytes], None]) -> None:
        """Have `hear` called with whatever comes, until `ended`; it must not raise."""
        self._loop.add_reader(self._fd, self._read, hear)

    def close(self) -> None:
        """Hear no more. Idempotent."""
        if not self.ended.done():
            self._loop.remove_reader(self._fd)
            os.close(self._fd)
            self.ended.set_result(None)

    def _read(self, hear: Callable[[bytes], None]) -> None:
        data = b""
        with contextlib.suppress(OSError):
            try:
                data = os.read(self._fd, READ_BYTES)
            except (BlockingIOError, InterruptedError):
                return
        if data:
            hear(data)
        else:
            self.close()
