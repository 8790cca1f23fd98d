"""One turn by Ask, whatever happens to the calls that carry it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from typing import Any

import grpc
from warmline.v1 import chat_service_pb2 as chat_pb
from warmline.v1 import events_pb2

from warmline_client._backoff import Backoff
from warmline_client._call import passes
from warmline_client._errors import WarmlineError, from_rpc_error
from warmline_client._turn import is_end


async def asked(
    call: Callable[[chat_pb.Cursor], Any], reconnect_timeout: float
) -> AsyncIterator[events_pb2.Event]:
    """The events of a turn, each once; `call` asks for those after a place, again after a failure that
    passes.

    Raises WarmlineError.
    """
    cursor = chat_pb.Cursor()
    backoff: Backoff | None = None
    while True:
        try:
            async for response in call(cursor):
                for event in response.events:
                    if event.seq:
                        cursor.epoch, cursor.seq, backoff = event.epoch, event.seq, None
                    yield event
                    if is_end(event):
                        return
            error = WarmlineError.of(grpc.StatusCode.UNKNOWN, "The stream ended before its turn.")
        except grpc.aio.AioRpcError as failure:
            error = from_rpc_error(failure)
        backoff = backoff or Backoff(reconnect_timeout)
        if not (reconnect_timeout and passes(error) and await backoff.wait(error.retry_after)):
            raise error
