"""A credential of a caller's from the wire, checked."""

from __future__ import annotations

import re

from warmline.v1 import session_config_pb2 as pb

from warmline_service.errors import field_invalid
from warmline_service.sessions import Secrets

# It is sent in a header.
_SECRET = re.compile(r"[!-~]{1,8192}")


def credential_of(credential: pb.Credential, field: str) -> Secrets:
    """The credential by its kind; it has to be set."""
    kind = credential.WhichOneof("kind")
    if kind is None:
        raise field_invalid(field, "is neither `api_key` nor `oauth_token`")
    secret: str = getattr(credential, kind)
    if not _SECRET.fullmatch(secret):
        raise field_invalid(f"{field}.{kind}", "must be ASCII without spaces, at most 8 KiB")
    return Secrets((kind,), {kind: secret})
