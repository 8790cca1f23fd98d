"""A conversation's history told to a running process, without a model request."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from msgspec import Raw

from warmline_service.errors import Reason, WarmlineError
from warmline_service.worker._exit import Exit
from warmline_service.worker._history import History, Told
from warmline_service.worker._messages import CliMessage, JsonObject, Result
from warmline_service.worker._process import CliProcess

# A message takes about 8 ms; with every core busy, a hundred times that.
_PER_MESSAGE = 0.8


async def inject(process: CliProcess, history: History) -> None:
    """Tell a process what was said, after `bind` and before its first turn; nothing of it is acted upon.

    Whoever listened to the process does no longer. Raises CLI_CRASHED where the process does not take
    it all within cli.control_timeout and 0.8 s a message: then it must not be used.
    """
    timeout = process.control_timeout + _PER_MESSAGE * len(history.messages)
    ear = _Ear()
    process.attach(ear)
    process.expect_echo(each.uuid for each in history.messages)
    try:
        async with asyncio.timeout(timeout):
            for told in history.messages:
                await process.write_line(_line(told))
                if told.role == "user":
                    await ear.taken(told.uuid)
            # What the process still says about the last of them comes before this answer.
            await process.ping()
    except TimeoutError:
        raise WarmlineError(
            Reason.CLI_CRASHED, f"The CLI did not take a history in within {timeout:g} s."
        ) from None
    finally:
        process.attach(None)


def _line(told: Told) -> JsonObject:
    line: JsonObject = {
        "type": told.role,
        "message": Raw(told.message),
        "parent_tool_use_id": None,
        "session_id": "",
        "uuid": told.uuid,
    }
    if told.role == "user":
        line |= {"client_composed": True, "shouldQuery": False}
    return line


class _Ear:
    """Hears that a message was taken in."""

    def __init__(self) -> None:
        self._results: asyncio.Queue[Result | Exit] = asyncio.Queue()

    async def taken(self, uuid: str) -> None:
        """Wait until this message was; an order of their own would be the wrong one."""
        while True:
            end = await self._results.get()
            if isinstance(end, Exit):
                raise end.error()
            if end.covers(uuid) or end.user_message_uuid is None:
                break
        if end.failed or end.num_turns:
            raise WarmlineError(Reason.CLI_CRASHED, "The CLI did not take a history as one.")

    def on_messages(self, batch: Sequence[CliMessage]) -> None:
        """Keep the results."""
        for message in batch:
            if isinstance(message, Result):
                self._results.put_nowait(message)

    def on_exit(self, exit: Exit) -> None:  # noqa: A002  # the sink's own word
        """There will be none."""
        self._results.put_nowait(exit)
