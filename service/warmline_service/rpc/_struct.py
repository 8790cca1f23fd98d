"""JSON objects as protobuf carries them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec
from google.protobuf.struct_pb2 import Struct

# Each level of JSON is three of protobuf, whose parsers stop at 100.
LEVELS = 25
# Beyond it a number of JSON is no double.
_LARGEST = 10**300


def fill_struct(out: Struct, given: Mapping[str, Any]) -> None:
    """A JSON object; what protobuf cannot carry of it travels as its JSON text."""
    out.update(_fit(dict(given), LEVELS))


def fits_struct(given: Mapping[str, Any]) -> bool:
    """Whether all of a JSON object travels as it is."""
    return bool(_fit(dict(given), LEVELS) == given)


def _fit(value: Any, levels: int) -> Any:
    if isinstance(value, dict | list) and not levels:
        return msgspec.json.encode(value).decode()
    if isinstance(value, dict):
        return {name: _fit(each, levels - 1) for name, each in value.items()}
    if isinstance(value, list):
        return [_fit(each, levels - 1) for each in value]
    if isinstance(value, int) and abs(value) > _LARGEST:
        return f"{value:#x}"
    return value
