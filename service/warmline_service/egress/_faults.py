"""Failures in the shape of Anthropic's API, which is what the CLI understands and reports."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import msgspec
from aiohttp import web

_TYPES = {
    400: "invalid_request_error",
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    413: "request_too_large",
    429: "rate_limit_error",
    504: "timeout_error",
    529: "overloaded_error",
}
_LONGEST_RETRY = 24 * 3600.0


@dataclass(frozen=True, slots=True)
class UpstreamError:
    """How a model request failed: HTTP status, the API's word for it, seconds to wait."""

    status: int
    type: str
    retry_after: float | None = None


class _Error(msgspec.Struct):
    type: str = ""


class _Body(msgspec.Struct):
    error: _Error | None = None


def error_type(status: int) -> str:
    """The API's word for an HTTP status."""
    return _TYPES.get(status, "invalid_request_error" if status < 500 else "api_error")


def status_of(type_: str) -> int:
    """The HTTP status for one of the API's words; 500 for an unknown one."""
    return next((status for status, name in _TYPES.items() if name == type_), 500)


def error_body(status: int, message: str) -> bytes:
    """The JSON body of an error; `message` is one sentence that holds no secret."""
    error = {"type": error_type(status), "message": message}
    return msgspec.json.encode({"type": "error", "error": error})


def error_response(
    status: int, message: str, headers: Mapping[str, str] | None = None
) -> web.Response:
    """An error as the API would answer it."""
    return web.Response(
        status=status,
        body=error_body(status, message),
        content_type="application/json",
        headers=headers,
    )


def read_error(status: int, retry_after: str | None, body: bytes) -> UpstreamError:
    """What an upstream's error answer says; a body in another shape than the API's says nothing."""
    try:
        error = msgspec.json.decode(body, type=_Body).error
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        error = None
    said = error.type if error else ""
    return UpstreamError(status, said or error_type(status), _seconds(retry_after))


def _seconds(text: str | None) -> float | None:
    """A `retry-after` in seconds; its other form, a date, is passed over."""
    try:
        seconds = float(text) if text else -1.0
    except ValueError:
        return None
    return seconds if 0 <= seconds <= _LONGEST_RETRY else None
