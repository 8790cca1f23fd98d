"""Every failure that a caller can see, named by reason; the wire's statuses are the edge's business."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Reason(StrEnum):
    """Why something failed: the names of `warmline.v1.ErrorReason` without their prefix."""

    KEY_INVALID = "KEY_INVALID"
    KEY_EXPIRED = "KEY_EXPIRED"
    CREDENTIAL_REJECTED = "CREDENTIAL_REJECTED"
    POLICY_DENIED = "POLICY_DENIED"
    TENANT_DISABLED = "TENANT_DISABLED"
    SESSION_NOT_FOUND = "SESSION_NOT_FOUND"
    MODEL_NOT_ALLOWED = "MODEL_NOT_ALLOWED"
    MODEL_NOT_FOUND = "MODEL_NOT_FOUND"
    TURN_NOT_FOUND = "TURN_NOT_FOUND"
    APPROVAL_NOT_FOUND = "APPROVAL_NOT_FOUND"
    FILE_NOT_FOUND = "FILE_NOT_FOUND"
    TENANT_NOT_FOUND = "TENANT_NOT_FOUND"
    KEY_NOT_FOUND = "KEY_NOT_FOUND"
    CREDENTIAL_NOT_FOUND = "CREDENTIAL_NOT_FOUND"
    FIELD_INVALID = "FIELD_INVALID"
    FRAME_OUT_OF_ORDER = "FRAME_OUT_OF_ORDER"
    MESSAGE_TOO_LARGE = "MESSAGE_TOO_LARGE"
    SESSION_BUSY = "SESSION_BUSY"
    TURN_CANCELLED = "TURN_CANCELLED"
    IDEMPOTENCY_CONFLICT = "IDEMPOTENCY_CONFLICT"
    QUOTA_EXCEEDED = "QUOTA_EXCEEDED"
    RATE_LIMITED = "RATE_LIMITED"
    POOL_EXHAUSTED = "POOL_EXHAUSTED"
    QUEUE_FULL = "QUEUE_FULL"
    SLOW_CONSUMER = "SLOW_CONSUMER"
    TURN_LIMIT_REACHED = "TURN_LIMIT_REACHED"
    BUDGET_EXCEEDED = "BUDGET_EXCEEDED"
    CLI_CRASHED = "CLI_CRASHED"
    CLI_NOT_FOUND = "CLI_NOT_FOUND"
    UPSTREAM_UNAVAILABLE = "UPSTREAM_UNAVAILABLE"
    UPSTREAM_OVERLOADED = "UPSTREAM_OVERLOADED"
    DRAINING = "DRAINING"
    STORAGE_UNAVAILABLE = "STORAGE_UNAVAILABLE"
    SESSION_ELSEWHERE = "SESSION_ELSEWHERE"
    MCP_UNAVAILABLE = "MCP_UNAVAILABLE"
    ISSUER_UNAVAILABLE = "ISSUER_UNAVAILABLE"
    TURN_TIMEOUT = "TURN_TIMEOUT"
    TURN_STALLED = "TURN_STALLED"
    OUTPUT_INVALID = "OUTPUT_INVALID"
    FIXED_BY_SETTINGS = "FIXED_BY_SETTINGS"
    TENANT_EXISTS = "TENANT_EXISTS"
    IDENTITY_TAKEN = "IDENTITY_TAKEN"
    INTERNAL = "INTERNAL"


@dataclass(frozen=True)
class FieldViolation:
    """One bad field of a request: its path in the request, and what is wrong with it."""

    field: str
    description: str


class WarmlineError(Exception):
    """A failure with a name that may be shown to the caller.

    `message` is one sentence for people and holds no secret; `metadata` are facts under lowerCamelCase
    names; `retry_after` is seconds, where trying again makes sense.
    """

    def __init__(
        self,
        reason: Reason,
        message: str,
        *,
        metadata: dict[str, str] | None = None,
        retry_after: float | None = None,
        violations: tuple[FieldViolation, ...] = (),
    ) -> None:
        super().__init__(f"{reason}: {message}")
        self.reason = reason
        self.message = message
        self.metadata = metadata or {}
        self.retry_after = retry_after
        self.violations = violations


def field_invalid(field: str, description: str) -> WarmlineError:
    """FIELD_INVALID for one field: `field` is its path in the request."""
    return WarmlineError(
        Reason.FIELD_INVALID,
        f"{field}: {description}",
        violations=(FieldViolation(field, description),),
    )
