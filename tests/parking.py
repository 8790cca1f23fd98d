"""Taking a session's process away in a test, and looking at what it is told when it goes on."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import psutil
from processes import descendants
from running import until
from warmline.v1 import chat_service_pb2 as chat_pb
from warmline.v1 import events_pb2 as pb
from warmline_client import Client, Conversation, WarmlineError, connect
from warmline_service.chat import Conversation as ServedConversation
from warmline_service.server import Service
from warmline_service.store import SessionRow

_TURN_TIMEOUT = 90.0
RESUMED = pb.START_KIND_RESUMED


@asynccontextmanager
async def client_of(service: Service) -> AsyncIterator[Client]:
    """A client of a service."""
    async with connect(f"127.0.0.1:{service.port}") as client:
        yield client


async def say(
    chat: Conversation, text: str, content: Sequence[chat_pb.InputBlock] = ()
) -> list[pb.Event]:
    """A turn's events."""
    turn = await chat.send(text, content=content)
    async with asyncio.timeout(_TURN_TIMEOUT):
        return [event async for event in turn]


def told_before(text: str) -> list[chat_pb.HistoryMessage]:
    """A conversation that was held elsewhere: the user said this, and the model answered."""
    user, model = chat_pb.HistoryMessage.ROLE_USER, chat_pb.HistoryMessage.ROLE_ASSISTANT
    return [
        chat_pb.HistoryMessage(role=role, content=[chat_pb.HistoryBlock(text=said)])
        for role, said in ((user, text), (model, "I see."))
    ]


async def end_of_turn(client: Client, session_id: str) -> pb.TurnCompleted:
    """The end of a session's first turn, for who observes it."""
    async with asyncio.timeout(_TURN_TIMEOUT):
        async for event in client.watch(session_id, kinds=["turn_completed"]):
            return event.turn_completed
    raise AssertionError("the stream ended")


def start_of(events: Sequence[pb.Event]) -> pb.LatencyReceipt:
    """How the turn came to the process that it ended on."""
    return [e.turn_started.latency for e in events if e.HasField("turn_started")][-1]


def resumed(events: Sequence[pb.Event]) -> float:
    """Assert that the turn went well on a process that was told the past; gives the seconds it took."""
    latency = start_of(events)
    assert events[-1].HasField("turn_completed"), events[-1]
    assert latency.start == RESUMED, latency
    assert latency.HasField("history")
    assert not notices(events)
    spans = (latency.spawn, latency.bind, latency.history)
    return float(sum(span.ToTimedelta().total_seconds() for span in spans))


def notices(events: Sequence[pb.Event]) -> list[str]:
    """The codes of a turn's notices."""
    return [event.notice.code for event in events if event.HasField("notice")]


def failure(events: Sequence[pb.Event]) -> WarmlineError:
    """How a turn failed."""
    assert events[-1].HasField("turn_failed"), events[-1]
    return WarmlineError(events[-1].turn_failed.status)


async def row_of(service: Service, session_id: str, tenant: str = "dev") -> SessionRow:
    """A session as it is stored."""
    assert service._store is not None
    return await service._store.session(tenant, session_id)


async def work_of(service: Service, session_id: str) -> Path:
    """The directory that the session's process works in, where it is its own."""
    row = await row_of(service, session_id)
    assert row.slot_id
    return service.settings.data_dir / "slots" / row.slot_id / "work"


def working_in(directory: Path) -> list[psutil.Process]:
    """The processes below this one that work in a directory."""
    return [each for each, shown in descendants("cwd") if shown["cwd"] == str(directory)]


def is_resumed(directory: Path) -> bool:
    """Whether the process that works in a directory began with a transcript."""
    return any(
        word.startswith("--resume=")
        for _, shown in descendants("cwd", "cmdline")
        if shown["cwd"] == str(directory)
        for word in shown["cmdline"] or ()
    )


def kill_cli(service: Service, session_id: str) -> None:
    """SIGKILL the session's process."""
    live = conversation_of(service, session_id)
    assert live is not None
    assert live._runner.process is not None
    live._runner.process._child.signal_group(signal.SIGKILL)


async def ended(service: Service, session_id: str) -> None:
    """Wait until the session has no process."""

    def hot() -> bool:
        live = conversation_of(service, session_id)
        return live is not None and live.hot

    await until(lambda: not hot())


async def parked(service: Service, session_id: str, tenant: str = "dev") -> None:
    """Wait until the session has no process, and its files are saved."""
    await ended(service, session_id)
    async with asyncio.timeout(60):
        while (await row_of(service, session_id, tenant)).slot_id:
            await asyncio.sleep(0.02)


def conversation_of(service: Service, session_id: str) -> ServedConversation | None:
    """The session as the service has it loaded."""
    assert service._conversations is not None
    return service._conversations.at_work(session_id)


def texts(messages: Sequence[Any], role: str = "user") -> list[str]:
    """What was said by one side, without tool results."""
    return [
        block["text"]
        for message in messages
        if message["role"] == role
        for block in message["content"]
        if block["type"] == "text"
    ]
