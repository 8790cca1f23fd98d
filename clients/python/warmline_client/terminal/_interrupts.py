"""Ctrl-C while a loop runs."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager

# Those that are in force, the innermost last.
_handlers: list[Callable[[], None]] = []


@contextmanager
def on_interrupt(handler: Callable[[], None]) -> Iterator[None]:
    """While it lasts, Ctrl-C calls this in the running loop; the innermost one is called.

    By the loop's own means, which wake it up. `asyncio.run` has the interpreter told alone: a signal that
    comes just before the loop goes to sleep is noticed when something else wakes it.
    """
    loop = asyncio.get_running_loop()
    _handlers.append(handler)
    loop.add_signal_handler(signal.SIGINT, handler)
    try:
        yield
    finally:
        _handlers.pop()
        if _handlers:
            loop.add_signal_handler(signal.SIGINT, _handlers[-1])
        else:
            loop.remove_signal_handler(signal.SIGINT)
