"""The messages of MCP between the CLI and the service."""

from __future__ import annotations

from typing import Any

import msgspec

PROTOCOL = "2025-06-18"
METHOD_NOT_FOUND, INVALID_PARAMS, INTERNAL_ERROR = -32601, -32602, -32603

Reply = dict[str, Any]


class Request(msgspec.Struct):
    """A message of the CLI to a server; one without an id wants no result."""

    method: str = ""
    id: str | int | None = None
    params: msgspec.Raw = msgspec.Raw(b"{}")


def result(request_id: str | int | None, value: Reply) -> Reply:
    """A good answer of JSON-RPC."""
    return {"jsonrpc": "2.0", "id": request_id, "result": value}


def failure(request_id: str | int | None, code: int, message: str) -> Reply:
    """A bad one."""
    return {"jsonrpc": "2.0", "id": request_id, "error": {"code": code, "message": message}}


def nothing() -> Reply:
    """What a message is answered with that wants no answer."""
    return {"jsonrpc": "2.0", "result": {}, "id": 0}


def failed_tool(request_id: str | int | None, text: str) -> Reply:
    """The result of a tool that could not be run: the model is told why, and goes on."""
    return result(request_id, {"content": [{"type": "text", "text": text}], "isError": True})
