"""Hostile requests over the wire: each gets a typed answer, and the service goes on."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.protobuf.message import DecodeError, EncodeError
from hostile import MARK, messages
from running import faking, running_service
from warmline.v1 import chat_service_pb2 as pb
from warmline.v1 import chat_service_pb2_grpc as pb_grpc
from warmline.v1 import events_pb2
from warmline.v1 import session_config_pb2 as config_pb

NO_SPARES = {"min_spares": 0, "max_spares": 0}
_AT_ONCE = 4
# What the service ends a call with when it does not know why.
_UNTYPED = (grpc.StatusCode.INTERNAL, grpc.StatusCode.UNKNOWN)
_UNTYPED_CODES = [code.value[0] for code in _UNTYPED]


@asynccontextmanager
async def _stub(directory: Path) -> AsyncIterator[pb_grpc.ChatServiceStub]:
    # All that an operator can allow, so that a good part is not refused for that alone.
    allowed: dict[str, Any] = {
        "limits": {"caller_commands": True},
        "mcp": {"allow_http": True},
        "provider": {"caller_credentials": True},
    }
    async with running_service(cli=faking(directory), pool=NO_SPARES, **allowed) as service:
        async with grpc.aio.insecure_channel(f"127.0.0.1:{service.port}") as channel:
            yield pb_grpc.ChatServiceStub(channel)


async def _answer(call: Any) -> tuple[grpc.StatusCode, list[events_pb2.Event]]:
    """How a call ended, and what it told."""
    events: list[events_pb2.Event] = []
    try:
        async for response in call:
            events += response.events
    except grpc.aio.AioRpcError as error:
        return error.code(), events
    return await call.code(), events


def _check(code: grpc.StatusCode, events: list[events_pb2.Event]) -> None:
    """Nothing that went wrong is without a name, and the process's own has no word of the model's."""
    assert code not in _UNTYPED
    for event in events:
        assert event.turn_failed.status.code not in _UNTYPED_CODES, event
        assert MARK not in event.turn_completed.result


def _requests(count: int) -> Iterator[pb.AskRequest]:
    """With a config each; the process answers with its environment, or with its arguments."""
    for number, config in enumerate(messages(config_pb.SessionConfig, "live", count)):
        text = ("!env", "!argv")[number // 2 % 2]
        # One that is too deep to be built cannot be sent either.
        with contextlib.suppress(DecodeError, EncodeError):
            request = pb.AskRequest(config=config, message=pb.UserMessage(text=text))
            yield pb.AskRequest.FromString(request.SerializeToString())


async def _ordinary(stub: pb_grpc.ChatServiceStub) -> None:
    code, events = await _answer(stub.Ask(pb.AskRequest(message=pb.UserMessage(text="hi"))))
    assert code is grpc.StatusCode.OK
    assert events[-1].turn_completed.result == "echo: hi"


async def test_hostile_configs_are_answered_by_name(tmp_path: Path) -> None:
    """Through Chat and Ask; a good part of them runs, and the process shows nothing of what is told."""
    results: list[str] = []
    places = asyncio.Semaphore(_AT_ONCE)

    async def run(request: pb.AskRequest, ask: bool) -> None:
        async with places:
            if ask:
                call: Any = stub.Ask(request, timeout=30)
            else:
                opening = pb.ChatRequest(open=pb.Open(config=request.config))
                message = pb.ChatRequest(message=request.message)
                call = stub.Chat(iter([opening, message]), timeout=30)
            code, events = await _answer(call)
        _check(code, events)
        results.extend(e.turn_completed.result for e in events if e.HasField("turn_completed"))

    async with _stub(tmp_path) as stub:
        async with asyncio.TaskGroup() as tasks:
            for number, request in enumerate(_requests(300)):
                tasks.create_task(run(request, number % 2 == 0))
        assert sum('"CLAUDE_CONFIG_DIR"' in result for result in results) > 5
        assert sum('"--verbose"' in result for result in results) > 5
        await _ordinary(stub)


@pytest.mark.parametrize("kind", ["Chat", "Ask", "Watch"])
async def test_hostile_frames_are_answered_by_name(tmp_path: Path, kind: str) -> None:
    """Any frames in any order, and any cursor into a session that there is."""
    async with _stub(tmp_path) as stub:
        _, events = await _answer(stub.Ask(pb.AskRequest(message=pb.UserMessage(text="hi"))))
        for number in range(100):
            call: Any
            if kind == "Chat":
                frames = list(messages(pb.ChatRequest, f"chat{number}", 4))
                call = stub.Chat(iter([pb.ChatRequest(open=pb.Open()), *frames]), timeout=5)
            elif kind == "Ask":
                call = stub.Ask(next(messages(pb.AskRequest, f"ask{number}", 1)), timeout=5)
            else:
                request = next(messages(pb.WatchRequest, f"watch{number}", 1))
                request.session_id, request.replay_only = events[0].session_id, True
                call = stub.Watch(request, timeout=5)
            _check(*await _answer(call))
        await _ordinary(stub)
