"""Sees when a turn that waits for an approval can go without its process."""

from __future__ import annotations

import structlog

from warmline_service.chat._context import Context
from warmline_service.chat._desk import Desk
from warmline_service.chat._turn import Turn
from warmline_service.errors import WarmlineError
from warmline_service.sessions.events import ApprovalRequested

_log = structlog.get_logger(__name__)


class Parking:
    """Parks one turn in one process, when nobody has answered for `after` seconds.

    Only a call that is alone can be gone on from: with several in one answer, or in a sub-agent, the
    process is kept until what is left is one.
    """

    def __init__(self, desk: Desk, context: Context, after: float) -> None:
        self._desk = desk
        self._context = context
        self._after = after
        self._kept: ApprovalRequested | None = None

    async def watch(self, turn: Turn) -> None:
        """Wait until the turn can be parked, and do it; for ever where it cannot be."""
        while True:
            asked = await self._overdue()
            # What the model says after the call belongs to the same answer.
            await turn.spoken.wait()
            try:
                alone = await self._alone(asked)
            except WarmlineError as error:
                _log.warning("turn not parked yet", turn=turn.id, reason=error.reason.value)
                await self._desk.changed_within(self._after)
                continue
            if not alone:
                self._kept = asked
            elif self._desk.alone is asked:
                if turn.park():
                    self._desk.park()
                return

    async def survives(self) -> bool:
        """Whether the turn can go on although its process has ended; then it is parked."""
        asked = self._desk.alone
        try:
            alone = asked is not None and await self._alone(asked)
        except WarmlineError:
            return False  # It ends as every turn whose process has ended.
        if not alone or self._desk.alone is not asked:
            return False
        self._desk.park()
        return True

    async def _alone(self, asked: ApprovalRequested) -> bool:
        return await self._context.unanswered() == {asked.tool_call_id}

    async def _overdue(self) -> ApprovalRequested:
        while True:
            asked = self._desk.alone
            if asked is None or asked is self._kept:
                await self._desk.changed_within(None)
            elif self._desk.hurried or not await self._desk.changed_within(self._after):
                return asked
