"""What the operator has to allow before a session may have it."""

from __future__ import annotations

from dataclasses import dataclass

from warmline_service.config import (
    CliSettings,
    Level,
    LimitSettings,
    McpSettings,
    ProviderSettings,
    TenantPolicy,
)
from warmline_service.errors import Reason, WarmlineError, field_invalid
from warmline_service.sandbox import level_missing
from warmline_service.sessions import SessionConfig


@dataclass(frozen=True)
class Policy:
    """The operator's settings, as far as they bound a session's configuration.

    `own_credential`: whether the operator has one, for sessions without another. `level`: what is around
    the processes of a tenant that has no other; `levels`: what there can be.
    """

    limits: LimitSettings
    cli: CliSettings
    mcp: McpSettings
    provider: ProviderSettings
    own_credential: bool
    level: Level
    levels: frozenset[Level]

    def level_of(self, tenant: TenantPolicy) -> Level:
        """What is around a tenant's processes."""
        return tenant.sandbox or self.level

    def other_level_of(self, tenant: TenantPolicy) -> Level | None:
        """The same, where it is not what is around spares."""
        level = self.level_of(tenant)
        return None if level == self.level else level

    def check(self, config: SessionConfig, level: Level) -> None:
        """Raise POLICY_DENIED, or FIELD_INVALID for a plugin that is not here.

        `level` is what is around the tenant's processes.
        """
        if level not in self.levels:
            raise level_missing(level)
        self._check_mode(config, level)
        for index, plugin in enumerate(config.plugins):
            if plugin.name and plugin.name not in self.cli.plugins:
                raise field_invalid(
                    f"config.plugins[{index}].name", "is none that is installed here"
                )
        if not self.limits.caller_commands:
            for field in _commands(config):
                text = (
                    "may run commands on the service's machine; the operator can allow it by "
                    "limits.caller_commands"
                )
                raise _denied(field, text)
        self._check_servers(config)
        self._check_credential(config)

    def _check_mode(self, config: SessionConfig, level: Level) -> None:
        if config.permission_mode in self.limits.forbidden_permission_modes:
            raise WarmlineError(
                Reason.POLICY_DENIED,
                f"The permission mode {config.permission_mode} is not allowed here.",
                metadata={"permissionMode": config.permission_mode},
            )
        if config.permission_mode == "bypassPermissions" and level == "none":
            text = "The permission mode that asks for nothing needs a sandbox; there is none here."
            raise WarmlineError(Reason.POLICY_DENIED, text)

    def _check_servers(self, config: SessionConfig) -> None:
        for name, server in config.mcp_servers.items():
            if server.target.startswith("http:") and not self.mcp.allow_http:
                text = "has to be reached by https; the operator can allow http by mcp.allow_http"
                raise _denied(f"mcp_servers[{name}]", text)

    def _check_credential(self, config: SessionConfig) -> None:
        if config.credential.names and not self.provider.caller_credentials:
            text = "is not taken here; the operator can allow it by provider.caller_credentials"
            raise _denied("credential", text)


def _commands(config: SessionConfig) -> list[str]:
    """The fields that may run commands."""
    own = [f"plugins[{index}].files" for index, each in enumerate(config.plugins) if each.files]
    if config.setting_sources:
        own.append("setting_sources")
    if "hooks" in config.settings:
        own.append("settings.hooks")
    servers = config.mcp_servers.items()
    return own + [f"mcp_servers[{name}]" for name, each in servers if each.kind == "stdio"]


def _denied(field: str, text: str) -> WarmlineError:
    field = f"config.{field}"
    return WarmlineError(Reason.POLICY_DENIED, f"{field} {text}.", metadata={"field": field})
