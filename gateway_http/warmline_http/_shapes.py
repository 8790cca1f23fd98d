"""Failures in the shape that each API has for them."""

from __future__ import annotations

import math
from collections.abc import Mapping
from enum import Enum
from typing import Any

import msgspec
from starlette.responses import Response

from warmline_http._failure import Failure

# https://docs.anthropic.com/en/api/errors
_ANTHROPIC = {
    400: "invalid_request_error",
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    413: "request_too_large",
    429: "rate_limit_error",
    503: "overloaded_error",
    504: "timeout_error",
    529: "overloaded_error",
}
_OPENAI = {
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    429: "rate_limit_error",
}


# What becomes of a request's fields, and which they were.
_OPENAI_NAMES = {
    "open.config.client_tools": "tools",
    "open.config.output_schema": "response_format",
    "open.config.model": "model",
    "open.config.system_prompt": "messages",
    "open.history": "messages",
    "message": "messages",
}


class Shape(Enum):
    """Whose API a route belongs to."""

    OWN = "own"
    ANTHROPIC = "anthropic"
    OPENAI = "openai"


def shape_of(path: str, headers: Mapping[bytes, bytes]) -> Shape:
    """The shape in which a route tells its failures."""
    if path == "/v1/messages" or path.startswith("/v1/messages/"):
        return Shape.ANTHROPIC
    if path.startswith("/v1/chat/completions"):
        return Shape.OPENAI
    if path == "/v1/models" or path.startswith("/v1/models/"):
        return Shape.ANTHROPIC if b"anthropic-version" in headers else Shape.OPENAI
    return Shape.OWN


def body_of(shape: Shape, failure: Failure, request_id: str) -> dict[str, Any]:
    """A failure as a JSON object."""
    if shape is Shape.ANTHROPIC:
        kind = _ANTHROPIC.get(anthropic_status(failure), "api_error")
        if failure.status < 500 and kind == "api_error":
            kind = "invalid_request_error"
        error = {"type": kind, "message": failure.message}
        return {"type": "error", "error": error, "request_id": request_id}
    if shape is Shape.OPENAI:
        kind = "invalid_request_error" if failure.status < 500 else "server_error"
        return {
            "error": {
                "message": failure.message,
                "type": _OPENAI.get(failure.status, kind),
                "param": _param(next(iter(failure.fields), "")),
                "code": failure.reason.lower(),
            }
        }
    own: dict[str, Any] = {
        "status": failure.status,
        "reason": failure.reason,
        "message": failure.message,
    }
    more = {
        "fields": failure.fields,
        "metadata": failure.metadata,
        "retry_after": failure.retry_after,
    }
    told = {name: value for name, value in more.items() if value}
    return {"error": own | told | {"request_id": request_id}}


def _param(field: str) -> str | None:
    """The request's own name for a field of the service's."""
    if field == "body":
        return None
    own = field.split(".")[0].split("[")[0]
    if own not in ("open", "message"):
        return field or None
    return next((name for start, name in _OPENAI_NAMES.items() if field.startswith(start)), None)


def anthropic_status(failure: Failure) -> int:
    """The status as Anthropic has it: 529 for a model that is overloaded."""
    return 529 if failure.reason == "UPSTREAM_OVERLOADED" else failure.status


def response_of(shape: Shape, failure: Failure, request_id: str) -> Response:
    """A failure as a whole response."""
    headers = {"request-id": request_id, "x-request-id": request_id}
    if failure.retry_after is not None:
        headers["retry-after"] = str(max(1, math.ceil(failure.retry_after)))
    if failure.status == 401:
        headers["www-authenticate"] = "Bearer"
    if failure.status == 408:
        # The rest may drip in for ever.
        headers["connection"] = "close"
    status = anthropic_status(failure) if shape is Shape.ANTHROPIC else failure.status
    body = msgspec.json.encode(body_of(shape, failure, request_id))
    return Response(body, status, headers, media_type="application/json")
