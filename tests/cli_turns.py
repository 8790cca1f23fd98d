"""Speaking to a CLI process in a test: a sink that keeps what it hears, and one turn at a time."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Sequence

from warmline_service.worker import (
    CliMessage,
    CliProcess,
    Content,
    ContentBlockDelta,
    Exit,
    Result,
    StreamEvent,
)

_TIMEOUT = 90.0


class Ear:
    """Keeps every message, and wakes whoever waits for a result, a first text or the exit."""

    def __init__(self) -> None:
        loop = asyncio.get_running_loop()
        self.messages: list[CliMessage] = []
        self.first_text: asyncio.Future[str] = loop.create_future()
        self.end: asyncio.Future[Result | Exit] = loop.create_future()

    def on_messages(self, batch: Sequence[CliMessage]) -> None:
        """Keep them."""
        self.messages += batch
        for message in batch:
            if isinstance(message, Result) and not self.end.done():
                self.end.set_result(message)
            event = message.event if isinstance(message, StreamEvent) else None
            if isinstance(event, ContentBlockDelta) and not self.first_text.done():
                self.first_text.set_result(event.delta.text)

    def on_exit(self, exit: Exit) -> None:  # noqa: A002  # the sink's own word
        """Keep it, unless a result came before."""
        if not self.end.done():
            self.end.set_result(exit)


async def begin(process: CliProcess, text: str) -> Ear:
    """Send a message and listen from now on."""
    return await begin_with(process, text)


async def begin_with(process: CliProcess, content: Content) -> Ear:
    """The same with content of any kind."""
    ear = Ear()
    process.attach(ear)
    await process.send_user(content, str(uuid.uuid4()))
    return ear


async def ended(ear: Ear) -> Result | Exit:
    """Wait for the end of a turn."""
    return await asyncio.wait_for(ear.end, _TIMEOUT)


async def turn(process: CliProcess, text: str) -> Result:
    """Send a message and wait for its result."""
    end = await ended(await begin(process, text))
    assert isinstance(end, Result), end
    return end


async def crash(process: CliProcess, text: str) -> Exit:
    """Send a message and wait for the process to end without a result."""
    end = await ended(await begin(process, text))
    assert isinstance(end, Exit), end
    return end
