"""Who calls: passed on to the service as it was shown, and never looked into or logged."""

from __future__ import annotations

import re
import uuid
from collections.abc import Mapping

# As the service takes it; another one is given.
_REQUEST_ID = re.compile(r"[A-Za-z0-9._:-]{1,128}")
# What can be a metadata value; others would break the call.
_PRINTABLE = re.compile(r"[ -~]{1,8192}")

Metadata = tuple[tuple[str, str], ...]


def request_id_of(headers: Mapping[bytes, bytes]) -> str:
    """The caller's own id of the request where it is well-formed, else a new one."""
    given = headers.get(b"x-request-id", b"").decode("latin-1")
    return given if _REQUEST_ID.fullmatch(given) else str(uuid.uuid4())


def metadata_of(headers: Mapping[bytes, bytes], request_id: str) -> Metadata:
    """What a call is made with: the caller's `authorization`, or `x-api-key` in its place."""
    shown = headers.get(b"authorization", b"").decode("latin-1")
    key = headers.get(b"x-api-key", b"").decode("latin-1")
    if not shown and key:
        shown = f"Bearer {key}"
    said: list[tuple[str, str]] = [("x-request-id", request_id)]
    if _PRINTABLE.fullmatch(shown):
        said.append(("authorization", shown))
    return tuple(said)
