"""Bytes that are no message of the contract become a value, so that they get a typed answer."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import grpc
from google.protobuf.message import DecodeError

from warmline_service.errors import WarmlineError, field_invalid


class Malformed:
    """Stands for a request that could not be decoded."""

    def error(self) -> WarmlineError:
        """What the caller is told."""
        return field_invalid(
            "request",
            "is not a message of this contract: bad protobuf, or a string that is not UTF-8",
        )


def checked(request: Any) -> None:
    """Raise FIELD_INVALID where a request could not be decoded."""
    if isinstance(request, Malformed):
        raise request.error()


class TolerantDecoding(grpc.aio.ServerInterceptor):
    """Lets malformed requests through to the handlers, where gRPC itself would answer INTERNAL."""

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[Any]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> Any:
        """Wrap the method's deserializer."""
        handler = await continuation(handler_call_details)
        if handler is None or handler.request_deserializer is None:
            return handler
        return handler._replace(request_deserializer=_tolerant(handler.request_deserializer))


def _tolerant(decode: Callable[[bytes], Any]) -> Callable[[bytes], Any]:
    def decode_or_mark(data: bytes) -> Any:
        try:
            return decode(data)
        except DecodeError:
            return Malformed()

    return decode_or_mark
