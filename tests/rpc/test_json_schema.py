"""What is a JSON schema."""

import time
from random import Random
from typing import Any

import jsonschema  # type: ignore[import-untyped]  # what is used of it is small
import pytest
from warmline_service.errors import Reason, WarmlineError
from warmline_service.rpc._json_schema import check_schema

_VALUES: tuple[Any, ...] = (
    *(True, False, None, 1, -1, 1.5, {}, [], "x", "(", "^a", "#/$defs/a", "string", "object"),
    *(["a"], ["a", "a"], [1], ["string", "object"], ["string", "string"], ["string", "other"]),
)
_KEYWORDS = (
    *(
        "type",
        "properties",
        "required",
        "items",
        "prefixItems",
        "allOf",
        "not",
        "if",
        "enum",
        "const",
    ),
    *(
        "additionalProperties",
        "patternProperties",
        "propertyNames",
        "dependentRequired",
        "minLength",
    ),
    *(
        "$defs",
        "$ref",
        "$id",
        "$anchor",
        "pattern",
        "multipleOf",
        "uniqueItems",
        "contains",
        "minimum",
    ),
    *(
        "dependencies",
        "definitions",
        "unevaluatedItems",
        "format",
        "title",
        "deprecated",
        "unknown",
    ),
)
# Nothing in it is twice; numbers and words together cannot be sorted.
_MIXED = [each for number in range(2500) for each in (number, str(number))]


def _refused(schema: dict[str, Any]) -> bool:
    try:
        check_schema(schema, "schema")
    except WarmlineError as error:
        return error.reason is Reason.FIELD_INVALID
    return False


def _refused_by_the_library(schema: dict[str, Any]) -> bool:
    try:
        jsonschema.Draft202012Validator.check_schema(schema)
    except jsonschema.SchemaError:
        return True
    return False


def _random(rng: Random, depth: int) -> Any:
    if not depth or rng.random() < 0.2:
        return rng.choice(_VALUES)
    if rng.random() < 0.2:
        return [_random(rng, depth - 1) for _ in range(rng.randint(0, 2))]
    return _object(rng, depth)


def _object(rng: Random, depth: int) -> dict[str, Any]:
    return {rng.choice(_KEYWORDS): _random(rng, depth - 1) for _ in range(rng.randint(0, 3))}


def test_it_is_what_the_library_takes_for_one() -> None:
    """The meta-schema in one piece says what its parts say."""
    rng = Random(1)  # noqa: S311  # repeatable, not secret
    schemas = [_object(rng, 3) for _ in range(2000)]
    refused = [_refused(schema) for schema in schemas]
    assert refused == [_refused_by_the_library(schema) for schema in schemas]
    assert 200 < sum(refused) < 1800


@pytest.mark.parametrize(
    "schema",
    [
        {"pattern": "a{99999999999}"},
        {"pattern": "(" * 5000 + ")" * 5000},
        {"type": ["string", "string"]},
    ],
)
def test_what_cannot_be_read_is_refused(schema: dict[str, Any]) -> None:
    """Also what Python's regular expressions give up at: never anything but FIELD_INVALID."""
    assert _refused(schema)


@pytest.mark.parametrize(
    ("schema", "bad"),
    [
        ({"type": _MIXED}, True),
        ({"type": [{"a": number} for number in range(4000)]}, True),
        ({"allOf": [True] * 13_000}, False),
        ({"properties": {str(number): {} for number in range(4000)}}, False),
    ],
    ids=["mixed", "objects", "many", "wide"],
)
def test_no_schema_takes_long(schema: dict[str, Any], bad: bool) -> None:
    """What fits into 64 KiB is checked in less than a few seconds of the processor, not in a minute."""
    begun = time.thread_time()
    assert _refused(schema) is bad
    assert time.thread_time() - begun < 4
