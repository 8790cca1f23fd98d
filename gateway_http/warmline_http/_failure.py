"""What a call can fail with, and the HTTP status that says so."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Self

import grpc
from google.rpc import error_details_pb2, status_pb2
from grpc_status import rpc_status

# By gRPC's own mapping (google/rpc/code.proto), ABORTED and CANCELLED as what they mean here.
STATUS: Mapping[grpc.StatusCode, int] = {
    grpc.StatusCode.OK: 200,
    grpc.StatusCode.CANCELLED: 499,
    grpc.StatusCode.UNKNOWN: 500,
    grpc.StatusCode.INVALID_ARGUMENT: 400,
    grpc.StatusCode.DEADLINE_EXCEEDED: 504,
    grpc.StatusCode.NOT_FOUND: 404,
    grpc.StatusCode.ALREADY_EXISTS: 409,
    grpc.StatusCode.PERMISSION_DENIED: 403,
    grpc.StatusCode.UNAUTHENTICATED: 401,
    grpc.StatusCode.RESOURCE_EXHAUSTED: 429,
    grpc.StatusCode.FAILED_PRECONDITION: 400,
    grpc.StatusCode.ABORTED: 409,
    grpc.StatusCode.OUT_OF_RANGE: 400,
    grpc.StatusCode.UNIMPLEMENTED: 501,
    grpc.StatusCode.INTERNAL: 500,
    grpc.StatusCode.UNAVAILABLE: 503,
    grpc.StatusCode.DATA_LOSS: 500,
}
_OWN_STATUS = {"MESSAGE_TOO_LARGE": 413, "CLI_CRASHED": 502, "UPSTREAM_UNAVAILABLE": 502}
_CODES = {code.value[0]: code for code in grpc.StatusCode}


class Failure(Exception):  # noqa: N818  # what it is
    """A request that failed, for a reason that may be shown.

    `status` is HTTP's; `reason` the name of an `ErrorReason` without its prefix, or the shim's own
    (`HOST_NOT_ALLOWED`, ...); `fields` what is wrong with which field; `retry_after` seconds.
    """

    def __init__(
        self,
        status: int,
        reason: str,
        message: str,
        *,
        fields: Mapping[str, str] | None = None,
        metadata: Mapping[str, str] | None = None,
        retry_after: float | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.reason = reason
        self.message = message
        self.fields = dict(fields or {})
        self.metadata = dict(metadata or {})
        self.retry_after = retry_after

    @classmethod
    def field(cls, name: str, wrong: str) -> Self:
        """A field of the body that is not acceptable."""
        return cls(400, "FIELD_INVALID", f"{name}: {wrong}", fields={name: wrong})

    @classmethod
    def fault(cls, request_id: str) -> Self:
        """A fault of the gateway's own; what it was is in its log alone."""
        text = f"A fault of the gateway; the request's id is {request_id}."
        return cls(500, "INTERNAL", text)

    @classmethod
    def stream_ended(cls) -> Self:
        """A stream of events that ended, and should have told of more."""
        return cls(502, "STREAM_ENDED", "The service ended the stream before the turn.")

    def without(self, prefix: str) -> Failure:
        """The same, for a caller who does not put this before the names of fields."""
        fields = {name.removeprefix(prefix): wrong for name, wrong in self.fields.items()}
        return Failure(
            self.status,
            self.reason,
            self.message,
            fields=fields,
            metadata=self.metadata,
            retry_after=self.retry_after,
        )

    @classmethod
    def of_status(cls, status: status_pb2.Status) -> Self:
        """What the service said, in a call's status or in a `turn_failed`."""
        info, retry = error_details_pb2.ErrorInfo(), error_details_pb2.RetryInfo()
        bad = error_details_pb2.BadRequest()
        for detail in status.details:
            for kind in (info, retry, bad):
                if detail.Is(kind.DESCRIPTOR):
                    detail.Unpack(kind)
        code = _CODES.get(status.code, grpc.StatusCode.UNKNOWN)
        seconds = retry.retry_delay.ToNanoseconds() / 1e9 if retry.HasField("retry_delay") else None
        return cls(
            _OWN_STATUS.get(info.reason, STATUS[code]),
            info.reason or code.name,
            status.message,
            fields={each.field: each.description for each in bad.field_violations},
            metadata=info.metadata,
            retry_after=seconds,
        )

    @classmethod
    def of_call(cls, error: grpc.aio.AioRpcError) -> Self:
        """How a call ended: in the service's own words where it sent some."""
        status = rpc_status.from_call(error)
        if status is None and error.code() in (
            grpc.StatusCode.UNAVAILABLE,
            grpc.StatusCode.CANCELLED,
        ):
            # gRPC's words tell of addresses.
            return cls(
                503, "SERVICE_UNREACHABLE", "The service cannot be reached.", retry_after=1.0
            )
        if status is None:
            status = status_pb2.Status(code=error.code().value[0], message=error.details() or "")
        return cls.of_status(status)


@asynccontextmanager
async def within(seconds: float) -> AsyncIterator[None]:
    """Bounds what the service is waited for; raises Failure where it takes longer."""
    try:
        async with asyncio.timeout(seconds):
            yield
    except TimeoutError:
        raise Failure(504, "TIMEOUT", "The service did not answer in time.") from None
