"""Many streams at once, read with as little code as gRPC allows."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import grpc
from warmline.v1 import chat_service_pb2 as pb
from warmline.v1.chat_service_pb2_grpc import ChatServiceStub

_TIMEOUT = 60.0
# Connections of their own: a server takes only so many streams on each.
_OPTIONS = [("grpc.use_local_subchannel_pool", 1)]

Call = Any  # grpc.aio.StreamStreamCall, whose stubs know no reading and writing


@asynccontextmanager
async def channel(address: str) -> AsyncIterator[grpc.aio.Channel]:
    """A connection that nothing else shares."""
    async with grpc.aio.insecure_channel(address, options=_OPTIONS) as made:
        yield made


async def open_stream(over: grpc.aio.Channel) -> Call:
    """A Chat whose session is open."""
    call: Call = ChatServiceStub(over).Chat()
    await call.write(pb.ChatRequest(open=pb.Open(detail=pb.DETAIL_TEXT)))
    async with asyncio.timeout(_TIMEOUT):
        await call.read()
    return call


async def say(call: Call, text: str) -> None:
    """Begin a turn."""
    await call.write(pb.ChatRequest(message=pb.UserMessage(text=text)))


@dataclass(frozen=True, slots=True)
class Arrival:
    """A text: when it was received here, and seen by the service, in monotonic nanoseconds."""

    received: int
    seen: int
    text: str


async def arrivals(call: Call) -> list[Arrival]:
    """The texts of the running turn. Raises RuntimeError where the turn fails."""
    taken: list[Arrival] = []
    # The service tells the time of day; both clocks are the machine's.
    offset = time.time_ns() - time.monotonic_ns()
    async with asyncio.timeout(_TIMEOUT):
        while (response := await call.read()) is not grpc.aio.EOF:
            now = time.monotonic_ns()
            for event in response.events:
                if event.HasField("text_delta"):
                    seen = event.time.ToNanoseconds() - offset
                    taken.append(Arrival(now, seen, event.text_delta.text))
                elif event.HasField("turn_failed"):
                    raise RuntimeError(f"a turn failed: {event.turn_failed.status.message}")
                elif event.HasField("turn_completed"):
                    return taken
    raise RuntimeError("the stream ended before its turn")


async def close(call: Call) -> None:
    """End a stream as a caller does who has nothing more to say."""
    await call.done_writing()
    async with asyncio.timeout(_TIMEOUT):
        while await call.read() is not grpc.aio.EOF:
            pass
