"""What the operator has to allow before a session may bring it."""

from __future__ import annotations

from warmline_service.config import CliSettings, LimitSettings
from warmline_service.errors import Reason, WarmlineError, field_invalid
from warmline_service.sessions import SessionConfig


def check_equipment(config: SessionConfig, limits: LimitSettings, cli: CliSettings) -> None:
    """Raise POLICY_DENIED for what may run commands, FIELD_INVALID for a plugin that is not here."""
    for index, plugin in enumerate(config.plugins):
        if plugin.name and plugin.name not in cli.plugins:
            raise field_invalid(f"config.plugins[{index}].name", "is none that is installed here")
    if not limits.caller_commands:
        for field in _commands(config):
            raise WarmlineError(
                Reason.POLICY_DENIED,
                f"config.{field} may run commands on the service's machine, and there is no sandbox "
                "around its processes; the operator can allow it by limits.caller_commands.",
                metadata={"field": f"config.{field}"},
            )


def _commands(config: SessionConfig) -> list[str]:
    """The fields that may run commands."""
    own = [f"plugins[{index}].files" for index, each in enumerate(config.plugins) if each.files]
    if config.setting_sources:
        own.append("setting_sources")
    if "hooks" in config.settings:
        own.append("settings.hooks")
    return own
