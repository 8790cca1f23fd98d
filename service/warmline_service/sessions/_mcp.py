"""MCP servers as a session is set up with them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Literal

from warmline_service.sessions._secrets import Secrets
from warmline_service.vault import Vault

# The longest wait for servers that are being connected, in seconds, where the session sets none.
MCP_WAIT = 10.0


@dataclass(frozen=True)
class McpServer:
    """An MCP server; `target` is its URL, or the program of a `stdio` one.

    `secrets` are its headers, or what is added to its environment.
    """

    kind: Literal["http", "sse", "stdio"]
    target: str
    arguments: tuple[str, ...] = ()
    secrets: Secrets = field(default_factory=Secrets)
    required: bool = False


def sealed(servers: Mapping[str, McpServer], vault: Vault, tenant: str) -> Mapping[str, McpServer]:
    """The same servers with nothing in them that may not be stored."""
    return {
        name: replace(server, secrets=server.secrets.seal(vault, tenant))
        for name, server in servers.items()
    }


@dataclass(frozen=True)
class McpWait:
    """Which servers a turn waits for beside the required ones, None for all, and for how many seconds."""

    names: tuple[str, ...] | None = None
    timeout: float = MCP_WAIT
