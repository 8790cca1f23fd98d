"""The output of a process, heard as soon as there is some."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable

# As much as a pipe holds.
READ_BYTES = 64 * 1024
# Reads may follow each other this closely, in seconds, after so many that follow at once. No model
# is as fast; of a CLI that is, each line would cost a round of the loop and a message of its own.
_PAUSE = 0.001
_AT_ONCE = 8.0
# A read of so many bytes is several lines already, and nothing is gained by waiting for more.
_MANY_BYTES = 4096


class Output:
    """The reading end of a pipe, on the event loop. It is always read: nobody can make it wait.

    Read in the loop's own callback: a StreamReader takes two more rounds of the loop and a task's
    wake-up for each line, which at many slow streams is a good part of what the service does.
    """

    def __init__(self, fd: int) -> None:
        os.set_blocking(fd, False)
        self._fd = fd
        self._loop = asyncio.get_running_loop()
        self._allowance = _AT_ONCE
        self._last_read = self._loop.time()
        self._pause: asyncio.TimerHandle | None = None
        self.ended: asyncio.Future[None] = self._loop.create_future()

    def listen(self, hear: Callable[[bytes], None]) -> None:
        """Have `hear` called with whatever comes, until `ended`; it must not raise."""
        self._loop.add_reader(self._fd, self._read, hear)

    def close(self) -> None:
        """Hear no more. Idempotent."""
        if not self.ended.done():
            if self._pause is not None:
                self._pause.cancel()
            self._loop.remove_reader(self._fd)
            os.close(self._fd)
            self.ended.set_result(None)

    def _read(self, hear: Callable[[bytes], None]) -> None:
        now = self._loop.time()
        left = min(_AT_ONCE, self._allowance + (now - self._last_read) / _PAUSE)
        self._allowance, self._last_read = left, now
        if left < 1.0:
            self._loop.remove_reader(self._fd)
            self._pause = self._loop.call_later((1.0 - left) * _PAUSE, self.listen, hear)
            return
        try:
            data = os.read(self._fd, READ_BYTES)
        except (BlockingIOError, InterruptedError):
            return
        except OSError:
            data = b""  # Broken, which is an end too.
        if len(data) < _MANY_BYTES:
            self._allowance -= 1.0
        if data:
            hear(data)
        else:
            self.close()
