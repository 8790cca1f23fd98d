"""What a handler is told of its caller's stream."""

import asyncio
from typing import Any, cast

import grpc
import pytest
from warmline_service.rpc._streaming import Context, read


class Leaving:
    """The context of a call whose client has gone: gRPC tells the end of the stream first."""

    def __init__(self, handler: asyncio.Task[Any]) -> None:
        self._handler = handler
        self._reads = 0

    async def read(self) -> object:
        """EOF; the second time its cancellation comes first."""
        self._reads += 1
        if self._reads == 2:
            self._handler.cancel()
            await asyncio.sleep(0)
        return grpc.aio.EOF


async def test_a_client_that_is_gone_is_not_one_that_has_said_everything() -> None:
    """Whoever takes the end for the end of an upload would keep half of it."""

    async def handle() -> object:
        handler = asyncio.current_task()
        assert handler is not None
        return await read(cast("Context", Leaving(handler)))

    with pytest.raises(asyncio.CancelledError):
        await asyncio.create_task(handle())
