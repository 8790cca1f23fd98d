"""JSON objects of callers' as the service takes them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from google.protobuf.message import DecodeError, EncodeError, Message
from google.protobuf.struct_pb2 import Struct

from warmline_http._failure import Failure
from warmline_http._proto import filled


def fill(struct: Struct, value: Mapping[str, Any], field: str) -> None:
    """Give an empty Struct these values. Raises Failure that names the field."""
    try:
        filled(struct, dict(value))
    except ValueError as error:
        raise Failure.field(field, str(error)) from None


def fill_within(request: Message, struct: Struct, value: Mapping[str, Any], field: str) -> None:
    """The same for a part of a request that is whole but for it, and then may be nested too deeply."""
    fill(struct, value, field)
    try:
        # Whoever reads it bounds how deep it goes.
        type(request).FromString(request.SerializeToString())
    except (EncodeError, DecodeError):
        raise Failure.field(field, "is nested too deeply") from None
