"""What all methods that list something have in common: the size of a page, and moments in filters."""

from __future__ import annotations

from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp

from warmline_service.errors import field_invalid

# What a caller may name without the service's clock running over: the years of a Timestamp.
LAST_SECOND = 253_402_300_799
_DEFAULT_PAGE = 50
_LARGEST_PAGE = 1000


def page_size_of(page_size: int) -> int:
    """How many a page may have: 50 where nothing is said, 1000 at the most."""
    if page_size < 0:
        raise field_invalid("page_size", "must not be negative")
    return min(page_size or _DEFAULT_PAGE, _LARGEST_PAGE)


def moment_of(wanted: Message, name: str) -> float | None:
    """A moment of a filter, in seconds since the epoch; None where it is not set."""
    if not wanted.HasField(name):
        return None
    moment: Timestamp = getattr(wanted, name)
    if not 0 <= moment.seconds <= LAST_SECOND:
        raise field_invalid(f"filter.{name}", "must be from 1970 to 9999")
    return moment.seconds + moment.nanos / 1e9
