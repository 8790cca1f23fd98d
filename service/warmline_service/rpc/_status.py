"""From the domain's errors to gRPC statuses: one table."""

from __future__ import annotations

from typing import NoReturn

import grpc
from google.protobuf.duration_pb2 import Duration
from google.rpc import error_details_pb2, status_pb2
from grpc_status import rpc_status

from warmline_service.errors import Reason, WarmlineError

DOMAIN = "warmline.v1"

_CODE = grpc.StatusCode
CODES: dict[Reason, grpc.StatusCode] = {
    Reason.KEY_INVALID: _CODE.UNAUTHENTICATED,
    Reason.KEY_EXPIRED: _CODE.UNAUTHENTICATED,
    Reason.CREDENTIAL_REJECTED: _CODE.UNAUTHENTICATED,
    Reason.POLICY_DENIED: _CODE.PERMISSION_DENIED,
    Reason.TENANT_DISABLED: _CODE.PERMISSION_DENIED,
    Reason.MODEL_NOT_ALLOWED: _CODE.PERMISSION_DENIED,
    Reason.SESSION_NOT_FOUND: _CODE.NOT_FOUND,
    Reason.MODEL_NOT_FOUND: _CODE.NOT_FOUND,
    Reason.TURN_NOT_FOUND: _CODE.NOT_FOUND,
    Reason.APPROVAL_NOT_FOUND: _CODE.NOT_FOUND,
    Reason.FILE_NOT_FOUND: _CODE.NOT_FOUND,
    Reason.TENANT_NOT_FOUND: _CODE.NOT_FOUND,
    Reason.KEY_NOT_FOUND: _CODE.NOT_FOUND,
    Reason.CREDENTIAL_NOT_FOUND: _CODE.NOT_FOUND,
    Reason.FIELD_INVALID: _CODE.INVALID_ARGUMENT,
    Reason.FRAME_OUT_OF_ORDER: _CODE.INVALID_ARGUMENT,
    Reason.MESSAGE_TOO_LARGE: _CODE.INVALID_ARGUMENT,
    Reason.SESSION_BUSY: _CODE.ABORTED,
    Reason.TURN_CANCELLED: _CODE.ABORTED,
    Reason.IDEMPOTENCY_CONFLICT: _CODE.ABORTED,
    Reason.QUOTA_EXCEEDED: _CODE.RESOURCE_EXHAUSTED,
    Reason.RATE_LIMITED: _CODE.RESOURCE_EXHAUSTED,
    Reason.POOL_EXHAUSTED: _CODE.RESOURCE_EXHAUSTED,
    Reason.QUEUE_FULL: _CODE.RESOURCE_EXHAUSTED,
    Reason.SLOW_CONSUMER: _CODE.RESOURCE_EXHAUSTED,
    Reason.TURN_LIMIT_REACHED: _CODE.RESOURCE_EXHAUSTED,
    Reason.BUDGET_EXCEEDED: _CODE.RESOURCE_EXHAUSTED,
    Reason.CLI_CRASHED: _CODE.UNAVAILABLE,
    Reason.CLI_NOT_FOUND: _CODE.UNAVAILABLE,
    Reason.UPSTREAM_UNAVAILABLE: _CODE.UNAVAILABLE,
    Reason.UPSTREAM_OVERLOADED: _CODE.UNAVAILABLE,
    Reason.DRAINING: _CODE.UNAVAILABLE,
    Reason.STORAGE_UNAVAILABLE: _CODE.UNAVAILABLE,
    Reason.SESSION_ELSEWHERE: _CODE.UNAVAILABLE,
    Reason.MCP_UNAVAILABLE: _CODE.UNAVAILABLE,
    Reason.ISSUER_UNAVAILABLE: _CODE.UNAVAILABLE,
    Reason.TURN_TIMEOUT: _CODE.DEADLINE_EXCEEDED,
    Reason.TURN_STALLED: _CODE.DEADLINE_EXCEEDED,
    Reason.OUTPUT_INVALID: _CODE.FAILED_PRECONDITION,
    Reason.FIXED_BY_SETTINGS: _CODE.FAILED_PRECONDITION,
    Reason.TENANT_EXISTS: _CODE.ALREADY_EXISTS,
    Reason.IDENTITY_TAKEN: _CODE.ALREADY_EXISTS,
    Reason.INTERNAL: _CODE.INTERNAL,
}

# gRPC carries a status in the trailers, where 8 KiB is the soft limit; longer texts are cut.
_TEXT_LIMIT = 1024


def status_of(error: WarmlineError) -> status_pb2.Status:
    """The whole `google.rpc.Status` of an error: code, ErrorInfo, and what else applies."""
    status = status_pb2.Status(
        code=CODES[error.reason].value[0], message=error.message[:_TEXT_LIMIT]
    )
    info = error_details_pb2.ErrorInfo(reason=error.reason.value, domain=DOMAIN)
    for name, value in error.metadata.items():
        info.metadata[name] = value[:_TEXT_LIMIT]
    status.details.add().Pack(info)
    if error.retry_after is not None:
        delay = Duration(nanos=0)
        delay.FromNanoseconds(int(error.retry_after * 1e9))
        status.details.add().Pack(error_details_pb2.RetryInfo(retry_delay=delay))
    if error.reason is Reason.QUOTA_EXCEEDED:
        failure = error_details_pb2.QuotaFailure()
        failure.violations.add(
            subject=error.metadata.get("quota", ""), description=error.message[:_TEXT_LIMIT]
        )
        status.details.add().Pack(failure)
    if error.violations:
        bad = error_details_pb2.BadRequest()
        for violation in error.violations[:8]:
            bad.field_violations.add(
                field=violation.field[:256], description=violation.description[:256]
            )
        status.details.add().Pack(bad)
    return status


async def abort(
    context: grpc.aio.ServicerContext[object, object], error: WarmlineError
) -> NoReturn:
    """End the call with this error."""
    await context.abort_with_status(rpc_status.to_status(status_of(error)))
    raise AssertionError("abort_with_status returned")
