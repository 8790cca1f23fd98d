"""One Chat stream, from its `open` to its end; every failure is a WarmlineError."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import grpc
from warmline.v1 import chat_service_pb2 as pb
from warmline.v1 import events_pb2

from warmline_client._errors import WarmlineError, from_rpc_error

# Failures of the way, or of a server that goes away: the service itself has refused nothing.
_PASSING = {
    grpc.StatusCode.UNAVAILABLE,
    grpc.StatusCode.CANCELLED,
    grpc.StatusCode.INTERNAL,
    grpc.StatusCode.UNKNOWN,
}


class ChatCall:
    """A call of `Chat`. One reader, and one writer at a time."""

    def __init__(self, call: Any) -> None:
        self._call = call

    async def open(self, opening: pb.Open) -> Sequence[events_pb2.Event]:
        """Send the `open`; gives the first events."""
        try:
            # Before the first write: a refusal that comes while writing reaches the caller garbled.
            await self._call.initial_metadata()
            await self._call.write(pb.ChatRequest(open=opening))
            first = await self._call.read()
        except grpc.aio.AioRpcError as error:
            raise from_rpc_error(error) from error
        except asyncio.InvalidStateError:
            raise await self.failure() from None
        if first is grpc.aio.EOF:
            raise await self.failure()
        return list(first.events)

    async def read(self) -> Sequence[events_pb2.Event]:
        """The next events; empty at the end, where `failure` says what it was."""
        try:
            response = await self._call.read()
        except grpc.aio.AioRpcError as error:
            raise from_rpc_error(error) from error
        return [] if response is grpc.aio.EOF else list(response.events)

    async def write(self, frame: pb.ChatRequest) -> None:
        """Send a frame."""
        try:
            await self._call.write(frame)
        except grpc.aio.AioRpcError as error:
            raise from_rpc_error(error) from error
        except asyncio.InvalidStateError:
            raise await self.failure() from None

    async def half_close(self) -> None:
        """Say that nothing more will be sent."""
        try:
            await self._call.done_writing()
        except grpc.aio.AioRpcError as error:
            raise from_rpc_error(error) from error
        except asyncio.InvalidStateError:
            raise await self.failure() from None

    def cancel(self) -> None:
        """Give the stream up at once."""
        self._call.cancel()

    async def failure(self) -> WarmlineError:
        """How the call ended."""
        code = await self._call.code()
        return from_rpc_error(
            grpc.aio.AioRpcError(
                code,
                await self._call.initial_metadata(),
                await self._call.trailing_metadata(),
                details=await self._call.details(),
            )
        )


def passes(error: WarmlineError) -> bool:
    """Whether it is worth connecting again."""
    if error.reason:
        return error.code is grpc.StatusCode.UNAVAILABLE or error.reason == "SLOW_CONSUMER"
    return error.code in _PASSING
