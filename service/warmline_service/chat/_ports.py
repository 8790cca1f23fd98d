"""What a conversation needs from others: declared here, implemented elsewhere, joined in the server."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

from warmline_service.chat._catalog import ModelCatalog
from warmline_service.config import CliSettings, LimitSettings, McpSettings
from warmline_service.errors import Reason, WarmlineError
from warmline_service.mcp import Broker
from warmline_service.pool import Pool
from warmline_service.sessions import (
    Journal,
    McpServer,
    Portable,
    SessionConfig,
    Sessions,
    Workspaces,
)
from warmline_service.sessions.events import Tokens
from warmline_service.store import Store
from warmline_service.vault import Vault
from warmline_service.worker import Capabilities, CliProcess


@dataclass(frozen=True)
class UpstreamFault:
    """The last error that a provider gave a slot; `retry_after` in seconds."""

    status: int
    retry_after: float | None


class ModelAccess(Protocol):
    """The way of a slot's process to a model, from the conversation's side."""

    def bind(self, slot_id: str, tenant: str, session_id: str) -> None:
        """From now on the slot's requests are this session's. Once per slot."""

    def metered(self, slot_id: str) -> Mapping[str, Tokens]:
        """What the slot has used since it was bound, by model; without cost."""

    def requests(self, slot_id: str) -> int:
        """How many requests to a model the slot has made since it was bound."""

    def last_fault(self, slot_id: str) -> UpstreamFault | None:
        """The last error that the provider answered with, if the last request failed."""


@dataclass(frozen=True)
class Runtime:
    """What all conversations share."""

    pool: Pool[CliProcess]
    access: ModelAccess
    catalog: ModelCatalog
    capabilities: Capabilities
    cli: CliSettings
    limits: LimitSettings
    store: Store
    sessions: Sessions
    journal: Journal
    workspaces: Workspaces
    portable: Portable
    broker: Broker
    vault: Vault
    mcp: McpSettings

    def check(self, config: SessionConfig) -> None:
        """Raise MODEL_NOT_FOUND or POLICY_DENIED for what a session cannot have here."""
        names = [config.model, *config.fallback_models]
        for name in (*names, *(agent.model for agent in config.agents.values())):
            self.catalog.resolve(name)
        if config.permission_mode in self.limits.forbidden_permission_modes:
            raise WarmlineError(
                Reason.POLICY_DENIED,
                f"The permission mode {config.permission_mode} is not allowed here.",
                metadata={"permissionMode": config.permission_mode},
            )
        if config.permission_mode == "bypassPermissions":
            text = "The permission mode that asks for nothing needs a sandbox; there is none here."
            raise WarmlineError(Reason.POLICY_DENIED, text)
        for name, server in config.mcp_servers.items():
            self._check_server(f"mcp_servers[{name}]", server)

    def _check_server(self, field: str, server: McpServer) -> None:
        if server.kind == "stdio" and not self.limits.caller_commands:
            why = "Commands of callers are not run here: there is no sandbox around processes"
        elif server.target.startswith("http:") and not self.mcp.allow_http:
            why = "MCP servers are reached by https only here"
        else:
            return
        raise WarmlineError(Reason.POLICY_DENIED, f"{field}: {why}.", metadata={"field": field})
