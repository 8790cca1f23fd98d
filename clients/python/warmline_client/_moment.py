"""Moments as they travel."""

from __future__ import annotations

from datetime import datetime

from google.protobuf.timestamp_pb2 import Timestamp


def timestamp_of(moment: datetime | None) -> Timestamp | None:
    """The same as a message; None stays None."""
    if moment is None:
        return None
    out = Timestamp()
    out.FromDatetime(moment)
    return out
