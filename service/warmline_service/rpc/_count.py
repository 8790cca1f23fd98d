"""What tokens are counted of, on the wire."""

from __future__ import annotations

from typing import Any, Protocol

import msgspec

from warmline_service.errors import field_invalid
from warmline_service.rpc._bounds import check_size


class TokenCounter(Protocol):
    """Asks the model's provider."""

    async def count(self, tenant: str, body: bytes) -> int:
        """The input tokens of a request of a tenant's; raises WarmlineError."""
        ...


def countable(body: bytes, limit: int) -> dict[str, Any]:
    """The request, which is a JSON object. Raises MESSAGE_TOO_LARGE, FIELD_INVALID."""
    check_size(len(body), limit, "body")
    try:
        request = msgspec.json.decode(body, type=dict[str, Any])
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        raise field_invalid("body", "is no JSON object") from None
    if not isinstance(request.get("model", ""), str):
        raise field_invalid("body.model", "is no text")
    return request
