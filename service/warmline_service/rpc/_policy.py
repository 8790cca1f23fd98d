"""A tenant's policy, from the wire and to it."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from pydantic import ValidationError
from warmline.v1 import admin_service_pb2 as pb

from warmline_service.config import Level, TenantPolicy
from warmline_service.errors import field_invalid

_LISTS = (
    "models",
    "providers",
    "permission_modes",
    "forbidden_tools",
    "mcp_hosts",
    "egress_hosts",
)


def policy_of(wire: pb.TenantPolicy, field: str, levels: Collection[Level]) -> TenantPolicy:
    """What a tenant may have, where `levels` of the sandbox can be had.

    Raises FIELD_INVALID, by the field of the policy.
    """
    given: dict[str, Any] = {
        each.name: list(value.names) if each.name in _LISTS else value
        for each, value in wire.ListFields()
    }
    try:
        policy = TenantPolicy.model_validate(given)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        name, *place = first["loc"]
        path = f"{field}.{name}.names[{place[0]}]" if place else f"{field}.{name}"
        raise field_invalid(path, first["msg"]) from None
    if policy.sandbox is not None and policy.sandbox not in levels:
        known = ", ".join(sorted(levels))
        raise field_invalid(f"{field}.sandbox", f"cannot be had here; there are: {known}")
    return policy


def fill_policy(out: pb.TenantPolicy, policy: TenantPolicy) -> None:
    """What it sets, and nothing else."""
    for name in policy.model_fields_set:
        value = getattr(policy, name)
        if value is None:
            continue
        if name in _LISTS:
            getattr(out, name).names.extend(sorted(value))
            getattr(out, name).SetInParent()
        else:
            setattr(out, name, value)
