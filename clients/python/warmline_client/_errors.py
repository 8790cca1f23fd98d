"""What a call or a turn can fail with."""

from __future__ import annotations

from typing import Self

import grpc
from google.rpc import error_details_pb2, status_pb2
from grpc_status import rpc_status


class WarmlineError(Exception):
    """A failure that the service named.

    `reason` is the name of an `ErrorReason` without its prefix, or empty where the failure is not the
    service's (such as a refused connection); `code` is the gRPC status; `retry_after` is seconds.
    """

    def __init__(self, status: status_pb2.Status) -> None:
        info, retry = error_details_pb2.ErrorInfo(), error_details_pb2.RetryInfo()
        bad = error_details_pb2.BadRequest()
        for detail in status.details:
            for kind in (info, retry, bad):
                if detail.Is(kind.DESCRIPTOR):
                    detail.Unpack(kind)
        self.code = _CODES.get(status.code, grpc.StatusCode.UNKNOWN)
        self.reason: str = info.reason
        self.message: str = status.message
        self.metadata = dict(info.metadata)
        self.fields = {v.field: v.description for v in bad.field_violations}
        self.retry_after: float | None = (
            retry.retry_delay.ToNanoseconds() / 1e9 if retry.HasField("retry_delay") else None
        )
        super().__init__(f"{self.reason or self.code.name}: {self.message}")

    @classmethod
    def of(cls, code: grpc.StatusCode, message: str) -> Self:
        """A failure that this side has found."""
        return cls(status_pb2.Status(code=code.value[0], message=message))


_CODES = {code.value[0]: code for code in grpc.StatusCode}


def from_rpc_error(error: grpc.aio.AioRpcError) -> WarmlineError:
    """The service's own words where it sent some, else gRPC's."""
    status = rpc_status.from_call(error)
    if status is None:
        status = status_pb2.Status(code=error.code().value[0], message=error.details() or "")
    return WarmlineError(status)
