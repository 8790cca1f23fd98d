"""A warm-up turn on a process that nobody has yet, after which it knows nothing of it."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Sequence

from warmline_service.errors import Reason, WarmlineError
from warmline_service.worker._exit import Exit
from warmline_service.worker._messages import CliMessage, Result, TranscriptMirror
from warmline_service.worker._process import CliProcess
from warmline_service.worker._transcript import lasting

# The deadline is the caller's.
_NO_OTHER = 3600.0


class TurnEnd:
    """A sink that waits for the end of a turn; `entries` is what lasts of the transcript till then."""

    def __init__(self) -> None:
        self.entries: list[bytes] = []
        self.result: asyncio.Future[Result] = asyncio.get_running_loop().create_future()

    def on_messages(self, batch: Sequence[CliMessage]) -> None:
        """Look for the result."""
        for message in batch:
            if isinstance(message, TranscriptMirror):
                self.entries += lasting(message)
            if isinstance(message, Result) and not self.result.done():
                self.result.set_result(message)

    def on_exit(self, exit: Exit) -> None:  # noqa: A002  # the sink's own word
        """There will be none."""
        if not self.result.done():
            self.result.set_exception(exit.error())


async def run_turn(
    process: CliProcess, text: str, *, verbatim: bool = True, end: TurnEnd | None = None
) -> Result:
    """Send `text` and wait for its end; the caller sets the deadline. Raises CLI_CRASHED."""
    end = end or TurnEnd()
    process.attach(end)
    try:
        await process.send_line(text, str(uuid.uuid4()), verbatim=verbatim)
        return await end.result
    finally:
        process.attach(None)


async def warm(process: CliProcess) -> None:
    """Ask something beside the conversation, which leaves no trace in it: that loads much already.

    The caller sets the deadline. Raises as `CliProcess.control` does.
    """
    await process.control("side_question", timeout=_NO_OTHER, question="hi")


async def prime(process: CliProcess) -> None:
    """Run one turn and clear it: what the first turn loads and compiles is then there.

    The caller sets the deadline. Raises CLI_CRASHED where the CLI could do neither.
    """
    for text, verbatim in (("hi", True), ("/clear", False)):
        result = await run_turn(process, text, verbatim=verbatim)
        if result.failed:
            raise WarmlineError(
                Reason.CLI_CRASHED, f"The CLI could not be warmed up: {result.result or text}"
            )
    # What the CLI still says about the last of these comes before this answer.
    await process.ping()
