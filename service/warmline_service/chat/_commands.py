"""MCP servers that are commands of the CLI's: how they are, as it says."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from warmline_service.mcp import ServerState, State
from warmline_service.worker import CliProcess, ControlRefused

_ERROR_LETTERS = 512
_STATES = {"connected": State.CONNECTED, "pending": State.CONNECTING}


class _Tool(msgspec.Struct):
    name: str = ""


class _Server(msgspec.Struct):
    name: str = ""
    status: str = ""
    transport: str = ""
    error: str = ""
    tools: tuple[_Tool, ...] = ()


async def look_at_commands(process: CliProcess) -> Mapping[str, ServerState]:
    """By their names; empty where the CLI says nothing that is understood. Raises CLI_CRASHED."""
    try:
        told = (await process.control("mcp_status")).get("mcpServers", ())
        servers = msgspec.convert(told, tuple[_Server, ...])
    except (ControlRefused, msgspec.ValidationError):
        return {}
    return {each.name: _state(each) for each in servers if each.transport == "stdio"}


def _state(server: _Server) -> ServerState:
    state = _STATES.get(server.status, State.FAILED)
    tools: tuple[Mapping[str, Any], ...] = tuple({"name": tool.name} for tool in server.tools)
    error = server.error[:_ERROR_LETTERS] if state is State.FAILED else ""
    return ServerState(state, error=error, tools=tools)
