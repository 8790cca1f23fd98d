"""A brokered server as the CLI sees it: one that is reached over the process's standard input."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import msgspec

from warmline_service.mcp._jsonrpc import (
    INVALID_PARAMS,
    PROTOCOL,
    Reply,
    Request,
    failure,
    nothing,
    result,
)
from warmline_service.mcp._state import ServerState


class _Version(msgspec.Struct):
    protocol: str = msgspec.field(default=PROTOCOL, name="protocolVersion")


class _Cancels(msgspec.Struct):
    id: str | int | None = msgspec.field(default=None, name="requestId")


@dataclass(frozen=True)
class Forward:
    """What the server itself has to be asked."""

    method: str
    params: Mapping[str, Any]


@dataclass(frozen=True)
class Cancelled:
    """The CLI waits no more for the answer to a message."""

    id: str | int | None


def heard(
    name: str, message: bytes, state: ServerState
) -> tuple[Request, Reply | Forward | Cancelled]:
    """A message of the CLI, and its answer, or what has to be done about it."""
    try:
        request = msgspec.json.decode(message, type=Request)
    except (msgspec.MsgspecError, RecursionError):
        return Request(), failure(None, INVALID_PARAMS, "this is no message of MCP")
    try:
        return request, _answer(name, request, state)
    except (msgspec.MsgspecError, RecursionError):
        # By its id, so that whoever called does not wait for ever.
        return request, failure(request.id, INVALID_PARAMS, "these are no parameters")


def _answer(name: str, request: Request, state: ServerState) -> Reply | Forward | Cancelled:
    match request.method:
        case "initialize":
            return result(request.id, _greeting(name, request, state))
        case "tools/list":
            return result(request.id, {"tools": list(state.tools)})
        case "ping":
            return result(request.id, {})
        case "notifications/cancelled":
            return Cancelled(msgspec.json.decode(request.params, type=_Cancels).id)
    if request.id is None:
        return nothing()
    params = msgspec.json.decode(request.params, type=dict[str, Any])
    # What the CLI adds is about itself, and no business of the server's.
    params.pop("_meta", None)
    return Forward(request.method, params)


def _greeting(name: str, request: Request, state: ServerState) -> Reply:
    version = msgspec.json.decode(request.params, type=_Version).protocol
    able: Reply = {"tools": {"listChanged": True}} | dict(state.capabilities)
    told: Reply = {"protocolVersion": version, "capabilities": able}
    if state.instructions:
        told["instructions"] = state.instructions
    return told | {"serverInfo": {"name": name, "version": "1"}}
