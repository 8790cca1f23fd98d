"""Ctrl-C while a loop sleeps."""

from __future__ import annotations

import asyncio
import contextlib
import signal


def wake_for_signals() -> None:
    """Have the running loop woken by each signal, so that it is heard at once.

    `asyncio.run` has the interpreter told of Ctrl-C, which listens when the main thread runs. A signal that
    another thread is given (gRPC has some), or that comes just before the loop goes to sleep, wakes nothing.
    """
    loop = asyncio.get_running_loop()
    # Nobody sends this one, and nobody minds it: what counts is that the loop asks to be woken for any.
    with contextlib.suppress(NotImplementedError, RuntimeError, AttributeError):
        loop.add_signal_handler(signal.SIGURG, lambda: None)
