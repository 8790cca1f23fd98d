"""Turns that wait for approvals without a process: what they ask, and what becomes of them."""

from __future__ import annotations

import asyncio
import json
from typing import Any

from google.protobuf.json_format import ParseDict
from parking import say
from running import text_of
from warmline.v1 import events_pb2 as pb
from warmline.v1 import session_config_pb2 as config_pb
from warmline_client import Conversation, Turn

CALL = '::tool Bash {"command":"echo ran >> log"}\n'
SCRIPT = f"{CALL}::echo messages"
READ = '::tool Bash {"command":"cat log"}\n::say read'


def config_of(**fields: Any) -> config_pb.SessionConfig:
    """A session that defers its approvals."""
    return ParseDict(
        {"approvals": {"mode": "MODE_DEFER"}, "tools": {"allowed": ["Bash(cat log)"]}} | fields,
        config_pb.SessionConfig(),
    )


async def asks(turn: Turn) -> pb.ApprovalRequested:
    """What the turn asks."""
    async with asyncio.timeout(90):
        async for event in turn:
            if event.HasField("approval_requested"):
                return event.approval_requested
    raise AssertionError("the turn ended")


async def parks(turn: Turn) -> pb.ApprovalRequested:
    """What the turn asks, once no process waits with it."""
    asked = pb.ApprovalRequested()
    async with asyncio.timeout(90):
        async for event in turn:
            if event.HasField("approval_requested"):
                asked = event.approval_requested
            if event.HasField("notice") and event.notice.kind == pb.Notice.KIND_PARKED:
                return asked
    raise AssertionError("the turn ended")


async def rest(turn: Turn) -> list[pb.Event]:
    """The turn's other events."""
    async with asyncio.timeout(90):
        return [event async for event in turn]


def outcomes(events: list[pb.Event]) -> list[int]:
    """What became of approvals."""
    return [e.approval_resolved.outcome for e in events if e.HasField("approval_resolved")]


def results(events: list[pb.Event]) -> list[tuple[str, bool]]:
    """What tools gave, and whether that was an error."""
    return [
        (e.tool_result.text, e.tool_result.is_error) for e in events if e.HasField("tool_result")
    ]


def sent(events: list[pb.Event]) -> list[Any]:
    """The blocks of the conversation that the model was sent last, but what the CLI reminds it of."""
    blocks = [
        block
        for message in json.loads(text_of(events))
        if message["role"] != "system" and isinstance(message["content"], list)
        for block in message["content"]
    ]
    return [b for b in blocks if not str(b.get("text")).startswith("<system-reminder>")]


async def ran(chat: Conversation) -> str:
    """How often the tool ran, as its file says."""
    return "".join(text for text, failed in results(await say(chat, READ)) if not failed)
