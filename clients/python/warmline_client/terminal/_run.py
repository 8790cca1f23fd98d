"""Runs a command to its exit code."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, NoReturn

import typer

from warmline_client._errors import WarmlineError
from warmline_client.terminal._interrupts import wake_for_signals
from warmline_client.terminal._options import err

# As a shell says that a command was ended by Ctrl-C.
_INTERRUPTED = 130


def run(main: Callable[[], Coroutine[Any, Any, None]], *, interrupted: int = _INTERRUPTED) -> None:
    """Run a command; what fails is said in words, with exit code 1. `interrupted` is Ctrl-C's code."""

    async def awake() -> None:
        wake_for_signals()
        await main()

    try:
        asyncio.run(awake())
    except WarmlineError as error:
        complain(error)
        raise typer.Exit(1) from None
    except KeyboardInterrupt:
        raise typer.Exit(interrupted) from None


def complain(error: WarmlineError) -> None:
    """Say what failed, and what to do about it."""
    err.print(str(error), style="red", markup=False)
    for field, description in error.fields.items():
        err.print(f"  {field}: {description}", style="red", markup=False)
    if error.code.name == "UNAVAILABLE" and not error.reason:
        err.print("Is the service running? `warmline serve` starts one.")
    if error.reason == "SESSION_NOT_FOUND":
        err.print("`warmline sessions list` shows which there are.")


def fail(message: str) -> NoReturn:
    """End the command with exit code 1, and say why."""
    err.print(message, style="red", markup=False)
    raise typer.Exit(1)
