"""The model behind the service, which counts what it is asked and so knows of turns that ran twice."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from aiohttp import web
from warmline_service.egress.loopback import LoopbackModel
from warmline_service.egress.loopback._request import Conversation

_MARK = re.compile(r"mark-[0-9]+-[0-9]+-end")


class CountingModel(LoopbackModel):
    """The loopback model; `asked` counts the requests for a message, `known` is what went with them.

    Messages are told apart by their marks. It outlives every process that asks it.
    """

    def __init__(self) -> None:
        super().__init__()
        self.asked: Counter[str] = Counter()
        self.known: dict[str, set[str]] = {}

    def _remember(self, session: str, conversation: Conversation) -> None:
        asked = json.loads(conversation.body)
        said = [each["content"] for each in asked["messages"] if each["role"] == "user"]
        # An unanswered message can be in one with its successor: the last mark is what is asked.
        marks = _MARK.findall(json.dumps(said[-1])) if said else []
        if marks:
            self.asked[marks[-1]] += 1
            self.known[marks[-1]] = set(_MARK.findall(json.dumps(asked["messages"])))


@asynccontextmanager
async def counting_model() -> AsyncIterator[tuple[CountingModel, str]]:
    """The model at a port of its own, and its base URL."""
    model = CountingModel()
    server = web.Server(model.handle, handler_cancellation=True, access_log=None)
    runner = web.ServerRunner(server, shutdown_timeout=0.5)
    await runner.setup()
    try:
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        yield model, f"http://127.0.0.1:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()


def mark(session: int, number: int) -> str:
    """The mark of a session's message."""
    return f"mark-{session}-{number}-end"
