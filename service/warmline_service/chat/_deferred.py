"""An approval that no process waits for: how it is known, kept, found again after a restart, and answered."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence

from warmline_service.mcp import Reply
from warmline_service.sessions import Journal, Session, SessionConfig
from warmline_service.sessions.events import (
    ApprovalRequested,
    ApprovalResolved,
    Body,
    Notice,
    NoticeKind,
    TurnStarted,
)
from warmline_service.store import TurnRow, TurnState
from warmline_service.worker import Capabilities, CliProcess, ControlRequest, Pending

# Their servers are connected to a process after its start, when it has looked for the tool already.
_LATE_TOOLS = "mcp__"


class StillParked(Exception):  # noqa: N818  # named for what is left
    """The service goes away and the turn does not: another service finds it as it is."""


def deferrable(can: Capabilities, config: SessionConfig, tool: str) -> bool:
    """Whether a call of the tool can wait without a process, and another process go on from it.

    That one begins with the turn, so all that the turn needs has to be given to it at its start.
    """
    tools = config.client_tools or config.mcp_servers
    late = tools or config.output_schema or config.thinking_tokens
    able = can.goes_on and can.mirror and not tool.startswith(_LATE_TOOLS)
    return config.defers and able and not (late or config.settings or config.setting_sources)


class Deferral:
    """What was asked, what was answered, and the process that asks again.

    `woken` is set when something has become of it.
    """

    def __init__(self, asked: ApprovalRequested) -> None:
        self.asked = asked
        self.reply: Reply | None = None
        self.woken = asyncio.Event()
        self._question: tuple[CliProcess, str] | None = None

    def pending(self, config: SessionConfig) -> Pending:
        """The call, for a process that goes on from it."""
        asked = self.asked
        return Pending(asked.tool_call_id, asked.tool_name, asked.input, config.options)

    def answer(self, reply: Reply) -> None:
        """Somebody has answered, or the time is over."""
        self.reply = reply
        self.woken.set()

    def takes(self, process: CliProcess, question: ControlRequest) -> bool:
        """Whether a question is this one, asked again; then it is answered by `give`."""
        if question.request.tool_use_id != self.asked.tool_call_id:
            return False
        self._question = process, question.request_id
        return True

    def give(self) -> None:
        """Give the answer to the process that has asked again."""
        assert self._question is not None
        assert self.reply is not None
        process, request_id = self._question
        process.answer(request_id, self.reply)


def parked() -> Notice:
    """Says that from now on no process waits with the turn; what it needs has been stored before."""
    text = (
        "Nobody has answered for a while; the turn goes on, in another process, when somebody does."
    )
    return Notice(NoticeKind.PARKED, "turn_parked", text)


async def parked_turn(
    journal: Journal, session: Session, rows: Sequence[TurnRow]
) -> tuple[TurnRow, ApprovalRequested] | None:
    """Of the turns that an earlier service left without an end: the one that waits, and for what.

    None where there is none. Raises STORAGE_UNAVAILABLE.
    """
    running = next((row for row in rows if row.state is TurnState.RUNNING), None)
    if running is None or not session.config.defers:
        return None
    asked: dict[str, ApprovalRequested] = {}
    waits = False
    async for body in _bodies(journal, session, running):
        match body:
            case ApprovalRequested():
                asked[body.id] = body
            case ApprovalResolved():
                asked.pop(body.id, None)
            case Notice(kind=NoticeKind.PARKED):
                waits = True
            case TurnStarted():
                waits = False
    # One that was answered may have run: it is not asked about again.
    return (running, next(iter(asked.values()))) if waits and len(asked) == 1 else None


async def _bodies(journal: Journal, session: Session, row: TurnRow) -> AsyncIterator[Body]:
    after = row.first_seq - 1
    while page := await journal.read(session.tenant, session.id, after, turn_id=row.id):
        for event in page:
            yield event.body
        after = page[-1].seq
