"""Stored credentials on the wire: in with what is secret of them, and out without."""

from __future__ import annotations

import re
from collections.abc import Collection
from dataclasses import dataclass

from google.protobuf.timestamp_pb2 import Timestamp
from warmline.v1 import admin_service_pb2 as pb

from warmline_service.credentials import Secret
from warmline_service.errors import field_invalid
from warmline_service.rpc._listing import LAST_SECOND
from warmline_service.rpc._parse_admin import text_of
from warmline_service.rpc._parse_credential import secret_of
from warmline_service.store import CredentialRow

_SCOPES = 32
_SCOPE = re.compile(r"[!-~]{1,100}")
_PLAN = 64
_KINDS = {
    "api_key": pb.StoredCredential.KIND_API_KEY,
    "oauth": pb.StoredCredential.KIND_OAUTH,
}


@dataclass(frozen=True)
class Given:
    """What an operator gives, checked."""

    secret: Secret
    oauth: bool
    expires_at: float | None = None
    scopes: tuple[str, ...] = ()
    subscription_type: str = ""


def given_of(request: pb.SetCredentialRequest) -> Given:
    """The secret by its kind; it has to be set."""
    kind = request.WhichOneof("secret")
    if kind is None:
        raise field_invalid("secret", "is neither `api_key` nor `oauth`")
    if kind == "api_key":
        return Given(Secret(secret_of(request.api_key, "api_key")), oauth=False)
    tokens = request.oauth
    refresh_token = tokens.refresh_token
    if refresh_token:
        secret_of(refresh_token, "oauth.refresh_token")
    return Given(
        Secret(secret_of(tokens.access_token, "oauth.access_token"), refresh_token),
        oauth=True,
        expires_at=_moment_of(tokens.expire_time) if tokens.HasField("expire_time") else None,
        scopes=_scopes_of(tokens.scopes),
        subscription_type=_plan_of(tokens.subscription_type),
    )


def stored_credential(row: CredentialRow) -> pb.StoredCredential:
    """What is shown of it."""
    out = pb.StoredCredential(
        tenant_id=row.tenant,
        name=row.name,
        kind=_KINDS[row.kind],
        is_default=row.is_default,
        scopes=row.scopes,
        subscription_type=row.subscription_type,
        note=row.note,
    )
    for moment, value in (
        (out.expire_time, row.expires_at),
        (out.create_time, row.created_at),
        (out.update_time, row.updated_at),
    ):
        if value is not None:
            moment.FromMicroseconds(round(value * 1e6))
    return out


def _moment_of(value: Timestamp) -> float:
    moment = value.seconds + value.nanos / 1e9
    if not 0 <= moment <= LAST_SECOND:
        raise field_invalid("oauth.expire_time", "must be from 1970 to the year 9999")
    return moment


def _scopes_of(values: Collection[str]) -> tuple[str, ...]:
    if len(values) > _SCOPES:
        raise field_invalid("oauth.scopes", f"has more than {_SCOPES} entries")
    for index, value in enumerate(values):
        if not _SCOPE.fullmatch(value):
            raise field_invalid(
                f"oauth.scopes[{index}]", "must be ASCII without spaces, at most 100 characters"
            )
    return tuple(values)


def _plan_of(value: str) -> str:
    field = "oauth.subscription_type"
    if len(value) > _PLAN:
        raise field_invalid(field, f"is longer than {_PLAN} characters")
    return text_of(value, field)
