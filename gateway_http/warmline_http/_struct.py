"""JSON objects of callers' as the service takes them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from google.protobuf import json_format, struct_pb2

from warmline_http._failure import Failure


def fill(struct: struct_pb2.Struct, value: Mapping[str, Any], field: str) -> None:
    """Give an empty Struct these values. Raises Failure that names the field."""
    try:
        json_format.ParseDict(dict(value), struct)
    except (json_format.ParseError, OverflowError) as error:
        raise Failure.field(field, str(error)[:200]) from None
