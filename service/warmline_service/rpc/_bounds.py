"""Bounds on fields from the wire."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from google.protobuf.duration_pb2 import Duration

from warmline_service.errors import Reason, WarmlineError, field_invalid


def check_count(given: Sequence[object] | Mapping[str, object], most: int, field: str) -> None:
    """FIELD_INVALID where there are more entries."""
    if len(given) > most:
        raise field_invalid(field, f"has more than {most} entries")


def too_large(field: str, text: str, limit: int) -> WarmlineError:
    """MESSAGE_TOO_LARGE of a field that may have `limit` bytes."""
    told = {"limitBytes": str(limit), "field": field}
    return WarmlineError(Reason.MESSAGE_TOO_LARGE, text, metadata=told)


def check_size(size: int, limit: int, field: str) -> None:
    """MESSAGE_TOO_LARGE where there are more bytes."""
    if size > limit:
        raise too_large(field, f"{field} has {size} bytes; {limit} are allowed.", limit)


def seconds_of(duration: Duration, bounds: tuple[float, float], field: str) -> float:
    """A duration in seconds, within bounds."""
    # In one division: the same time written otherwise is the same number.
    seconds = (duration.seconds * 10**9 + duration.nanos) / 10**9
    low, high = bounds
    if not low <= seconds <= high:
        raise field_invalid(field, f"must be from {low:g} s to {high:g} s")
    return seconds
