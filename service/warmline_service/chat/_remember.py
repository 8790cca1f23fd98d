"""What `remember` allows: for the process that asked, and for the session's later ones."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, get_args

import msgspec

from warmline_service.sessions import SessionConfig
from warmline_service.sessions.events import ApprovalRequested
from warmline_service.worker import PermissionMode

Update = Mapping[str, Any]
# Rules that a session may come to have in this way.
_MOST = 1000


def updates_of(asked: ApprovalRequested) -> Sequence[Update]:
    """What the CLI suggested, otherwise just the same again; in the CLI's form."""
    if asked.suggestions:
        return [{**each, "destination": "session"} for each in asked.suggestions]
    rule = {"toolName": asked.tool_name}
    if isinstance(command := asked.input.get("command"), str):
        rule["ruleContent"] = command
    return [{"type": "addRules", "rules": [rule], "behavior": "allow", "destination": "session"}]


def remembered(config: SessionConfig, updates: Sequence[Update]) -> SessionConfig:
    """The configuration with what was allowed; what is of another form holds for the process alone."""
    for update in updates:
        match update:
            case {"type": "addRules", "behavior": "allow", "rules": list(rules)}:
                new = [rule for each in rules if (rule := _rule(each)) is not None]
                known = dict.fromkeys((*config.allowed_tools, *new))
                config = replace(config, allowed_tools=tuple(known)[:_MOST])
            case {"type": "setMode", "mode": str(mode)} if mode != "bypassPermissions":
                if mode in get_args(PermissionMode):
                    config = replace(config, permission_mode=msgspec.convert(mode, PermissionMode))
    return config


def _rule(rule: object) -> str | None:
    match rule:
        case {"toolName": str(tool), "ruleContent": str(content)}:
            return f"{tool}({content})"
        case {"toolName": str(tool)}:
            return tool
    return None
