"""Who calls over a WebSocket: a browser can say it in the list of subprotocols alone."""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Sequence
from dataclasses import replace

from warmline_http._call import Call
from warmline_http._failure import Failure

# The one that is answered.
NAME = "warmline.v1"
_KEY = "warmline.key."
_PRINTABLE = re.compile(rb"[!-~]{1,8192}")


def identified(call: Call, subprotocols: Sequence[str]) -> Call:
    """The call in the name of the key among the subprotocols; a header `authorization` goes before it.

    Raises Failure where a key is not well-formed.
    """
    keys = [each.removeprefix(_KEY) for each in subprotocols if each.startswith(_KEY)]
    if not keys or any(name == "authorization" for name, _ in call.metadata):
        return call
    shown = ("authorization", f"Bearer {_decoded(keys[0])}")
    return replace(call, metadata=(*call.metadata, shown))


def _decoded(text: str) -> str:
    try:
        key = base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
    except (binascii.Error, ValueError):
        key = b""
    if not _PRINTABLE.fullmatch(key):
        raise Failure(401, "KEY_INVALID", f"What follows `{_KEY}` must be a key in base64url.")
    return key.decode()
