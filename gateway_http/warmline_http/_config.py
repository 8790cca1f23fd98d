"""How sessions of callers who speak another API are set up."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import timedelta
from typing import Any

from warmline.v1 import session_config_pb2 as config_pb

from warmline_http._struct import fill

# What a conversation with tools of the caller's waits for their results.
TOOL_TIMEOUT = timedelta(minutes=10)


def plain_config(model: str, system: str, *, bare: bool) -> config_pb.SessionConfig:
    """A model, and a prompt in place of the CLI's; `bare`: without the CLI's own tools and notes."""
    config = config_pb.SessionConfig(model=model)
    if system.strip():
        config.system_prompt.replace = system
    if bare:
        config.profile = config_pb.PROFILE_BARE
    return config


def add_tools(
    config: config_pb.SessionConfig,
    tools: Iterable[tuple[str, str, Mapping[str, Any]]],
    timeout: timedelta,
    field: str = "input_schema",
) -> None:
    """Tools of the caller's: name, description and schema of each. Raises Failure.

    `field` is what the schema is called in the caller's API.
    """
    for index, (name, description, schema) in enumerate(tools):
        tool = config.client_tools.add(name=name, description=description or name)
        tool.timeout.FromTimedelta(timeout)
        fill(tool.input_schema, schema, f"tools[{index}].{field}")


def remote_servers(
    config: config_pb.SessionConfig, servers: Mapping[str, tuple[str, str, str]]
) -> None:
    """MCP servers by name: URL, transport and token. Their tools run without being asked for."""
    for name, (url, transport, token) in servers.items():
        remote = getattr(config.mcp_servers[name], transport)
        remote.url = url
        if token:
            remote.headers["authorization"] = f"Bearer {token}"
        config.tools.allowed.append(f"mcp__{name}__*")
