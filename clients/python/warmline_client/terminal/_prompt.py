"""Reads what the user types, and minds Ctrl-C."""

from __future__ import annotations

import asyncio
import os
import signal
import stat
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, contextmanager
from typing import Any

from warmline_client._conversation import Conversation
from warmline_client.terminal._options import err

# A longer line from a pipe is more than a message can be.
_LINE_BYTES = 128 * 1024 * 1024


@asynccontextmanager
async def prompting() -> AsyncIterator[Callable[[], Awaitable[str | None]]]:
    """Gives what reads a line of the user's, or None at the end of the input."""
    if not _is_own_pipe(sys.stdin.fileno()):
        yield _prompt
        return
    loop = asyncio.get_running_loop()
    reader = asyncio.StreamReader(_LINE_BYTES)
    # A duplicate: the transport closes what it was given.
    pipe = os.fdopen(os.dup(sys.stdin.fileno()), "rb", buffering=0)
    transport, _ = await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), pipe)

    async def line() -> str | None:
        data = await reader.readline()
        text = data.decode(sys.stdin.encoding, sys.stdin.errors or "strict")
        return text.replace("\r\n", "\n") or None

    try:
        yield line
    finally:
        transport.close()
        # Whoever else reads from the pipe shares this flag, which the transport has changed.
        os.set_blocking(sys.stdin.fileno(), True)


def _is_own_pipe(stdin: int) -> bool:
    """Whether it is a pipe or socket that nothing is written to, so that it may be non-blocking."""
    kind = os.fstat(stdin)
    if not (stat.S_ISFIFO(kind.st_mode) or stat.S_ISSOCK(kind.st_mode)):
        return False
    return not any(os.path.samestat(kind, os.fstat(out)) for out in (1, 2))


async def _prompt() -> str | None:
    """A line from a terminal, which gives one at a time, or from a file."""
    loop = asyncio.get_running_loop()
    line: asyncio.Future[str] = loop.create_future()

    def read() -> None:
        if not line.done():
            line.set_result(sys.stdin.readline())

    if sys.stdin.isatty():
        err.print("[bold]>[/] ", end="")
    os.set_blocking(sys.stdin.fileno(), True)
    try:
        loop.add_reader(sys.stdin, read)
    except PermissionError:  # A regular file cannot be watched, and never blocks.
        return sys.stdin.readline() or None
    try:
        return await line or None
    finally:
        loop.remove_reader(sys.stdin)


@asynccontextmanager
async def interrupting(conversation: Conversation) -> AsyncIterator[None]:
    """Ctrl-C stops the turn, not the program."""
    loop = asyncio.get_running_loop()
    interrupts: set[asyncio.Task[Any]] = set()

    def interrupt() -> None:
        if all(task.done() for task in interrupts):
            interrupts.add(asyncio.create_task(conversation.interrupt()))

    with _signal(loop, interrupt):
        yield
        if interrupts:
            await asyncio.wait(interrupts, timeout=10)


@contextmanager
def _signal(loop: asyncio.AbstractEventLoop, handler: Callable[[], None]) -> Any:
    loop.add_signal_handler(signal.SIGINT, handler)
    try:
        yield
    finally:
        loop.remove_signal_handler(signal.SIGINT)
        signal.signal(signal.SIGINT, signal.default_int_handler)
