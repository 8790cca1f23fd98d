"""What a CLI asks, handed to who answers it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from warmline_service.worker._messages import ControlCancelRequest, ControlRequest

Question = ControlRequest | ControlCancelRequest
OnQuestion = Callable[[Question], None]


class Questions:
    """The questions of one process. While nobody listens they are refused, or with `keeps` kept."""

    def __init__(self, refuse: Callable[[ControlRequest], None], *, keeps: bool) -> None:
        self.listener: OnQuestion | None = None
        self._refuse = refuse
        self._keeps = keeps
        self._early: list[Question] = []
        self._call: asyncio.Future[str] = asyncio.get_running_loop().create_future()

    def listen(self, listener: OnQuestion | None) -> None:
        """Give whatever is asked, and was kept, to a listener; None: to nobody."""
        self.listener = listener
        early, self._early = self._early, []
        for question in early:
            self.take(question)

    def take(self, question: Question) -> None:
        """The CLI asks, or asks no more."""
        if self.listener is not None:
            self.listener(question)
        elif self._keeps:
            self._early.append(question)
            asked = question.request if isinstance(question, ControlRequest) else None
            if asked and asked.subtype == "can_use_tool" and not self._call.done():
                self._call.set_result(asked.tool_use_id)
        elif isinstance(question, ControlRequest):
            self._refuse(question)

    async def first_call(self, exited: asyncio.Future[Any]) -> str | None:
        """Wait for the first call that it asks about while nobody listens; None where it ended before."""
        await asyncio.wait({self._call, exited}, return_when=asyncio.FIRST_COMPLETED)
        return self._call.result() if self._call.done() else None
