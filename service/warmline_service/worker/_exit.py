"""How a process ended, who is told, and the error that callers get for it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from warmline_service.errors import Reason, WarmlineError
from warmline_service.worker._messages import CliMessage

# Error metadata travels in HTTP/2 headers, which are small.
_STDERR_IN_ERROR = 1024


@dataclass(frozen=True)
class Exit:
    """How a process ended: `cause` completes "the process …"; `code` or `signal` as reaped."""

    code: int | None
    signal: int | None
    stderr_tail: str
    cause: str

    def error(self) -> WarmlineError:
        """CLI_CRASHED, with what is known."""
        facts = {"exitCode": self.code, "signal": self.signal}
        metadata = {name: str(value) for name, value in facts.items() if value is not None}
        if self.stderr_tail:
            metadata["stderr"] = self.stderr_tail[-_STDERR_IN_ERROR:]
        return WarmlineError(
            Reason.CLI_CRASHED, f"The CLI process {self.cause}.", metadata=metadata
        )


class Sink(Protocol):
    """Who listens to a process now. Both are called by its reader; they do not block or raise."""

    def on_messages(self, batch: Sequence[CliMessage]) -> None:
        """What one read brought, in order; control answers are not among it."""

    def on_exit(self, exit: Exit) -> None:  # noqa: A002  # the word of the whole service
        """The process has ended; nothing more will come."""


def exit_of(returncode: int | None, stderr_tail: str, cause: str) -> Exit:
    """The Exit for what a process returned: its code, minus its signal, or None if not reaped."""
    if returncode is None:
        return Exit(None, None, stderr_tail, cause or "would not die")
    if returncode < 0:
        return Exit(None, -returncode, stderr_tail, cause or f"was killed by signal {-returncode}")
    how = f"exited with code {returncode}" if returncode else "ended by itself"
    return Exit(returncode, None, stderr_tail, cause or how)
