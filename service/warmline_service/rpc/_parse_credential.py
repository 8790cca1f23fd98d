"""A credential of a caller's: from the wire, checked, or from who he is."""

from __future__ import annotations

import re
from dataclasses import replace

from warmline.v1 import session_config_pb2 as pb

from warmline_service.chat import Opening
from warmline_service.errors import field_invalid
from warmline_service.sessions import PayingCredential, SessionConfig
from warmline_service.tenants import Principal

# It is sent in a header.
_SECRET = re.compile(r"[!-~]{1,8192}")
_NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,62}")


def credential_of(credential: pb.Credential, field: str) -> PayingCredential:
    """The credential by its kind; it has to be set."""
    kind = credential.WhichOneof("kind")
    if kind is None:
        raise field_invalid(field, "is none of `api_key`, `oauth_token` and `name`")
    if kind == "name":
        return PayingCredential(name=stored_name_of(credential.name, f"{field}.name"))
    secret = secret_of(getattr(credential, kind), f"{field}.{kind}")
    return PayingCredential((kind,), {kind: secret})


def secret_of(value: str, field: str) -> str:
    """An API key or a token; it has to be set."""
    if not _SECRET.fullmatch(value):
        raise field_invalid(field, "must be ASCII without spaces, at most 8 KiB")
    return value


def stored_name_of(value: str, field: str) -> str:
    """The name of a stored credential; it has to be set."""
    if not _NAME.fullmatch(value):
        # It may be the credential itself, which must not come back in an error.
        raise field_invalid(
            field, "must be a small letter or digit, then at most 62 of these, `-` or `_`"
        )
    return value


def paid_by(caller: Principal, config: SessionConfig) -> SessionConfig:
    """How a new session is set up: who is known by a credential pays with it, unless he gives another."""
    own = caller.credential
    if own is None or config.credential.names or config.credential.name:
        return config
    kind = "oauth_token" if own.oauth else "api_key"
    return replace(config, credential=PayingCredential((kind,), {kind: own.secret}))


def drop_shown(caller: Principal, config: pb.SessionConfig) -> None:
    """An export shows that there was a credential, and not which: his own stands in for it."""
    kind = config.credential.WhichOneof("kind")
    if caller.credential is not None and kind is not None and not getattr(config.credential, kind):
        config.ClearField("credential")


def opening_paid_by(caller: Principal, opening: Opening) -> Opening:
    """The same for what a stream begins with: what goes on has its credential already."""
    if opening.session_id or opening.forks_unchanged:
        return opening
    return replace(opening, config=paid_by(caller, opening.config))
