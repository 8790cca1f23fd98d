"""The input of a process: what is written goes in whole and in order, however slowly it reads."""

from __future__ import annotations

import asyncio
import os
from collections import deque

# As much as is offered to the pipe at once: it holds less.
_CHUNK = 256 * 1024


class Input:
    """The writing end of a pipe, on the event loop."""

    def __init__(self, fd: int) -> None:
        os.set_blocking(fd, False)
        self._fd = fd
        self._loop = asyncio.get_running_loop()
        self._left = bytearray()
        self._taken = 0
        self._written = 0
        # Whoever waits, by how much has to be written for it.
        self._waiters: deque[tuple[int, asyncio.Future[None]]] = deque()
        self._waits_for_room = False
        self._closing = False
        self._error: OSError | None = None

    async def write(self, data: bytes) -> None:
        """Write all of `data`, behind what others have written; raises OSError.

        Whoever gives up waiting leaves what is left behind, to be written all the same.
        """
        if self._error is not None or self._closing:
            raise self._error or BrokenPipeError("the input is closed")
        self._left += data
        self._taken += len(data)
        end = self._taken
        if not self._waits_for_room:
            self._flush()
        if self._error is not None:
            raise self._error
        if self._written < end:
            done: asyncio.Future[None] = self._loop.create_future()
            self._waiters.append((end, done))
            await done

    def close(self) -> None:
        """Let the process see the end of its input, after what was written. Idempotent."""
        self._closing = True
        if not self._left:
            self._shut(None)

    def abort(self) -> None:
        """Close it at once. Idempotent."""
        self._shut(BrokenPipeError("the input is closed"))

    def _flush(self) -> None:
        try:
            while self._left:
                with memoryview(self._left) as view, view[:_CHUNK] as chunk:
                    count = os.write(self._fd, chunk)
                del self._left[:count]
                self._written += count
        except (BlockingIOError, InterruptedError):
            if not self._waits_for_room:
                self._waits_for_room = True
                self._loop.add_writer(self._fd, self._flush)
        except OSError as error:
            self._shut(error)
        else:
            self._stop_waiting_for_room()
            if self._closing:
                self._shut(None)
        self._wake()

    def _wake(self) -> None:
        while self._waiters and self._waiters[0][0] <= self._written:
            _, done = self._waiters.popleft()
            if not done.done():
                done.set_result(None)

    def _stop_waiting_for_room(self) -> None:
        if self._waits_for_room:
            self._waits_for_room = False
            self._loop.remove_writer(self._fd)

    def _shut(self, error: OSError | None) -> None:
        """Close the pipe, once; whoever still waits is told why nothing more is written."""
        if self._fd < 0:
            return
        self._stop_waiting_for_room()
        os.close(self._fd)
        self._fd = -1
        self._closing, self._error = True, error
        self._left.clear()
        for _, done in self._waiters:
            if not done.done():
                done.set_exception(error or BrokenPipeError("the input is closed"))
                done.exception()  # Looked at, should its waiter have gone.
        self._waiters.clear()
