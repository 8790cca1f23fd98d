"""The caller's tools as the CLI sees them: an MCP server that is reached over its standard input."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec

from warmline_service.chat._answers import ToolAnswer
from warmline_service.mcp import (
    INVALID_PARAMS,
    METHOD_NOT_FOUND,
    PROTOCOL,
    Reply,
    failure,
    nothing,
    result,
)
from warmline_service.mcp import Request as _Request
from warmline_service.sessions import ClientTool


class _Meta(msgspec.Struct):
    tool_use_id: str = msgspec.field(default="", name="claudecode/toolUseId")


class _Params(msgspec.Struct):
    name: str = ""
    arguments: dict[str, Any] = {}  # msgspec copies an empty default
    meta: _Meta = msgspec.field(default_factory=_Meta, name="_meta")
    protocol: str = msgspec.field(default=PROTOCOL, name="protocolVersion")
    cancels: str | int | None = msgspec.field(default=None, name="requestId")


class Request(_Request):
    """A message of the CLI; `cancels` is the call that is not waited for any more."""

    cancels: str | int | None = None


@dataclass(frozen=True)
class Call:
    """The model calls a tool."""

    tool: ClientTool
    input: Mapping[str, Any]
    tool_call_id: str


def heard(message: bytes, tools: Sequence[ClientTool]) -> tuple[Request, Reply | Call]:
    """A message of the CLI, and its answer, or the call that has to be answered."""
    try:
        request = msgspec.json.decode(message, type=Request)
    except (msgspec.MsgspecError, RecursionError):
        return Request(), failure(None, INVALID_PARAMS, "this is no message of MCP")
    try:
        params = msgspec.json.decode(request.params, type=_Params)
    except (msgspec.MsgspecError, RecursionError):
        # By its id, so that whoever called does not wait for ever.
        return request, failure(request.id, INVALID_PARAMS, "these are no parameters")
    request.cancels = params.cancels
    match request.method:
        case "initialize":
            about = {"name": "client", "version": "1"}
            capable: Reply = {"tools": {}}
            told: Reply = {"protocolVersion": params.protocol, "capabilities": capable}
            return request, result(request.id, told | {"serverInfo": about})
        case "tools/list":
            return request, result(request.id, {"tools": [_told(tool) for tool in tools]})
        case "tools/call":
            return request, _call(request, params, tools)
        case "ping":
            return request, result(request.id, {})
    if request.id is None:
        return request, nothing()
    return request, failure(request.id, METHOD_NOT_FOUND, f"there is no {request.method} here")


def returned(answer: ToolAnswer) -> Reply:
    """What a tool gave, as MCP has it."""
    content: list[Reply] = [{"type": "text", "text": answer.text}] if answer.text else []
    for image in answer.images:
        data = base64.b64encode(image.data).decode()
        content.append({"type": "image", "data": data, "mimeType": image.media_type})
    return {"content": content, "isError": answer.is_error}


def _told(tool: ClientTool) -> Reply:
    return {
        "name": tool.name,
        "description": tool.description,
        "inputSchema": dict(tool.schema),
        "annotations": {"readOnlyHint": tool.read_only},
    }


def _call(request: Request, params: _Params, tools: Sequence[ClientTool]) -> Reply | Call:
    tool = next((each for each in tools if each.name == params.name), None)
    if tool is None:
        return failure(request.id, INVALID_PARAMS, "there is no such tool")
    return Call(tool, params.arguments, params.meta.tool_use_id)
