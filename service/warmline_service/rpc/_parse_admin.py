"""From the wire to the domain, for what operators ask."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable

from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp
from warmline.v1 import admin_service_pb2 as pb
from warmline.v1.options_pb2 import Scope

from warmline_service.errors import field_invalid
from warmline_service.rpc._listing import LAST_SECOND, page_size_of
from warmline_service.rpc._scopes import scope_name
from warmline_service.tenants import is_identity, is_reserved

_TENANT = re.compile(r"[a-z0-9][a-z0-9_-]{0,62}")
_KEY = re.compile(r"[a-z0-9]{4,32}")
_TEXT = 200
_IDENTITIES = 100
_DEFAULT_OVERLAP = 24 * 3600.0
_LONGEST_OVERLAP = 90 * 24 * 3600.0
_UPDATABLE = ("display_name", "disabled", "identities", "policy")


def tenant_id_of(value: str, field: str) -> str:
    """The id of a tenant; it has to be set."""
    if not _TENANT.fullmatch(value):
        raise field_invalid(
            field, "must be a small letter or digit, then at most 62 of these, `-` or `_`"
        )
    return value


def new_tenant_id_of(value: str, field: str) -> str:
    """The same for a tenant that is to be made."""
    if is_reserved(tenant_id_of(value, field)):
        raise field_invalid(field, "is kept for callers who bring a credential of their own")
    return value


def key_id_of(value: str, field: str) -> str:
    """The id of a key; it has to be set."""
    if not _KEY.fullmatch(value):
        # It may be the whole key, which must not come back in an error.
        raise field_invalid(field, "must be the id in a key: in `wl_<id>_<secret>` only <id>")
    return value


def text_of(value: str, field: str) -> str:
    """Text for people, in one line."""
    if len(value) > _TEXT:
        raise field_invalid(field, f"is longer than {_TEXT} characters")
    if not value.isprintable():
        raise field_invalid(field, "must have no line breaks and no control characters")
    return value


def identities_of(values: Collection[str], field: str) -> frozenset[str]:
    """Names in certificates."""
    if len(values) > _IDENTITIES:
        raise field_invalid(field, f"has more than {_IDENTITIES} entries")
    for index, value in enumerate(values):
        if not is_identity(value):
            raise field_invalid(
                f"{field}[{index}]", "is no URI, such as a SPIFFE id, DNS name or e-mail address"
            )
    return frozenset(values)


def scopes_of(values: Iterable[int], field: str) -> frozenset[str]:
    """Names of scopes."""
    found = set()
    for index, value in enumerate(values):
        if value not in Scope.values() or not value:
            raise field_invalid(f"{field}[{index}]", f"{value} is no scope")
        found.add(scope_name(value))
    return frozenset(found)


def expiry_of(value: Timestamp, field: str, now: float) -> float:
    """A moment to come, in seconds since the epoch."""
    moment = value.seconds + value.nanos / 1e9
    if not now < moment <= LAST_SECOND:
        raise field_invalid(field, "must be in the future, and before the year 10000")
    return moment


def overlap_of(value: Duration | None, field: str) -> float:
    """Seconds; a day where it is not set."""
    if value is None:
        return _DEFAULT_OVERLAP
    seconds = value.seconds + value.nanos / 1e9
    if not 0 <= seconds <= _LONGEST_OVERLAP:
        raise field_invalid(field, "must be from 0 s to 90 days")
    return seconds


def fields_of(paths: Collection[str], tenant: pb.Tenant, field: str) -> frozenset[str]:
    """The fields of a tenant that are to change; those that are set in it where none is named."""
    if not paths:
        return frozenset(each.name for each, _ in tenant.ListFields()) & set(_UPDATABLE)
    if list(paths) == ["*"]:
        return frozenset(_UPDATABLE)
    for index, path in enumerate(paths):
        if path not in _UPDATABLE:
            known = ", ".join(_UPDATABLE)
            raise field_invalid(f"{field}.paths[{index}]", f"must be one of {known}")
    return frozenset(paths)


def tenant_page_of(request: pb.ListTenantsRequest) -> tuple[str, int]:
    """The id after which a page begins, and how many it may have."""
    return _after(request.page_token, _TENANT), page_size_of(request.page_size)


def key_page_of(request: pb.ListApiKeysRequest) -> tuple[str, int]:
    """The same for a page of keys."""
    return _after(request.page_token, _KEY), page_size_of(request.page_size)


def credential_page_of(request: pb.ListCredentialsRequest) -> tuple[str, int]:
    """The same for a page of credentials."""
    return _after(request.page_token, _TENANT), page_size_of(request.page_size)


def _after(token: str, form: re.Pattern[str]) -> str:
    if token and not form.fullmatch(token):
        raise field_invalid("page_token", "is none that this service gave")
    return token
