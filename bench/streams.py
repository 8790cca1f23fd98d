"""Many streams at once, read with as little code as gRPC allows."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
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


async def close(call: Call) -> None:
    """End a stream as a caller does who has nothing more to say."""
    await call.done_writing()
    async with asyncio.timeout(_TIMEOUT):
        while await call.read() is not grpc.aio.EOF:
            pass
