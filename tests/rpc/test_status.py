"""Domain errors on the wire."""

import pytest
from google.rpc import error_details_pb2
from warmline.v1 import errors_pb2
from warmline_service.errors import FieldViolation, Reason, WarmlineError
from warmline_service.rpc._status import CODES, DOMAIN, status_of

# The contract's own words: which status carries which tens of the reason's number.
TENS = {
    1: "UNAUTHENTICATED",
    2: "PERMISSION_DENIED",
    3: "NOT_FOUND",
    4: "INVALID_ARGUMENT",
    5: "ABORTED",
    6: "RESOURCE_EXHAUSTED",
    7: "UNAVAILABLE",
    8: "DEADLINE_EXCEEDED",
    9: "INTERNAL",
    10: "FAILED_PRECONDITION",
    11: "ALREADY_EXISTS",
}


def test_the_domain_and_the_contract_have_the_same_reasons() -> None:
    """A reason exists on both sides or on none."""
    names = errors_pb2.DESCRIPTOR.enum_types_by_name["ErrorReason"].values_by_name
    wire = {name.removeprefix("ERROR_REASON_") for name in names}
    assert wire - {"UNSPECIFIED"} == {reason.value for reason in Reason}


@pytest.mark.parametrize("reason", list(Reason))
def test_each_reason_has_the_status_that_its_number_says(reason: Reason) -> None:
    """The tens of a reason's number name its gRPC status."""
    number = errors_pb2.ErrorReason.Value(f"ERROR_REASON_{reason.value}")
    assert CODES[reason].name == TENS[number // 10]


@pytest.mark.parametrize("reason", list(Reason))
def test_each_error_carries_its_reason(reason: Reason) -> None:
    """The first detail is an ErrorInfo with domain, reason and metadata."""
    status = status_of(WarmlineError(reason, "why", metadata={"a": "b"}))
    info = error_details_pb2.ErrorInfo()
    assert status.details[0].Unpack(info)
    assert (info.domain, info.reason, dict(info.metadata)) == (DOMAIN, reason.value, {"a": "b"})


def test_an_error_fits_into_the_trailers() -> None:
    """However long its parts are, a status stays under gRPC's soft limit of 8 KiB."""
    error = WarmlineError(
        Reason.FIELD_INVALID,
        "x" * 100_000,
        violations=tuple(FieldViolation("f" * 9000, "d" * 9000) for _ in range(100)),
    )
    assert status_of(error).ByteSize() < 8192


def test_retry_after_and_quota_have_their_own_details() -> None:
    """RetryInfo says when, QuotaFailure says what."""
    error = WarmlineError(
        Reason.QUOTA_EXCEEDED, "full", metadata={"quota": "sessions"}, retry_after=1.5
    )
    details = status_of(error).details
    retry, quota = error_details_pb2.RetryInfo(), error_details_pb2.QuotaFailure()
    assert details[1].Unpack(retry)
    assert details[2].Unpack(quota)
    assert retry.retry_delay.ToMilliseconds() == 1500
    assert quota.violations[0].subject == "sessions"
