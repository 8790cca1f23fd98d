"""Which scope each method wants, as the proto declares it beside the method."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from warmline.v1 import options_pb2 as pb

_PREFIX = "SCOPE_"


def scope_name(scope: int) -> str:
    """A scope as the domain names it, such as `chat`; ValueError for a number that is none."""
    return pb.Scope.Name(pb.Scope.ValueType(scope)).removeprefix(_PREFIX).lower()


def scope_value(name: str) -> pb.Scope.ValueType:
    """The scope that the domain names so."""
    return pb.Scope.Value(f"{_PREFIX}{name.upper()}")


def scopes_of(services: Iterable[Any]) -> Mapping[str, str]:
    """The scope of each method of these services, by its path. ValueError for a method that has none."""
    found = {}
    for service in services:
        for method in service.methods:
            scope = method.GetOptions().Extensions[pb.scope]
            if scope == pb.SCOPE_UNSPECIFIED:
                raise ValueError(f"{method.full_name} declares no scope")
            found[f"/{service.full_name}/{method.name}"] = scope_name(scope)
    return found
