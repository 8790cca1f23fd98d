"""What is a JSON schema, found out in a time that grows with its size and no faster."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

import jsonschema  # type: ignore[import-untyped]  # what is used of it is small
import msgspec
from jsonschema_specifications import REGISTRY  # type: ignore[import-untyped]  # only contents

from warmline_service.errors import field_invalid

_BASE = "https://json-schema.org/draft/2020-12/"


def check_schema(schema: Mapping[str, Any], field: str) -> None:
    """Raise FIELD_INVALID for what is no JSON schema."""
    try:
        error = next(_CHECKER.iter_errors(schema), None)
    except (RecursionError, OverflowError):
        # The latter is a pattern's, such as `a{99999999999}`.
        why = "is no JSON schema that can be read: too deep, or a number in a pattern is too large"
        raise field_invalid(field, why) from None
    if error is not None:
        raise field_invalid(field, f"is no JSON schema: {error.message[:200]}")


def _meta_schema() -> dict[str, Any]:
    """The schema of schemas in one piece: to go through its seven parts takes ten times as long."""
    whole = REGISTRY.contents(f"{_BASE}schema")
    parts = [whole, *(REGISTRY.contents(_BASE + part["$ref"]) for part in whole["allOf"])]
    merged = {
        name: {key: value for part in parts for key, value in part.get(name, {}).items()}
        for name in ("properties", "$defs")
    }
    text = msgspec.json.encode(merged | {"type": whole["type"]}).decode()
    # What the parts say of each other is now said of the same place.
    text = text.replace('"$dynamicRef":"#meta"', '"$ref":"#"')
    meta: dict[str, Any] = msgspec.json.decode(re.sub(r'"\$ref":"meta/[a-z-]+#', '"$ref":"#', text))
    return meta


def _unique(_validator: object, wanted: bool, given: object, _schema: object) -> Iterator[Any]:
    """The keyword `uniqueItems`: that of the library compares each with each, a minute for 64 KiB."""
    if wanted and isinstance(given, list):
        different = {msgspec.json.encode(each, order="sorted") for each in given}
        if len(different) < len(given):
            yield jsonschema.ValidationError("has the same value twice in a list")


_Validator = jsonschema.validators.extend(jsonschema.Draft202012Validator, {"uniqueItems": _unique})
_CHECKER = _Validator(_meta_schema(), format_checker=_Validator.FORMAT_CHECKER)
