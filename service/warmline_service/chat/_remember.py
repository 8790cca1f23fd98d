"""What `remember` allows: for the process that asked, and for the session's later ones."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from typing import Any, get_args

import msgspec

from warmline_service.sessions import MOST_RULES, SessionConfig, is_rule
from warmline_service.sessions.events import ApprovalRequested
from warmline_service.worker import PermissionMode

Update = Mapping[str, Any]
# A command that means only itself in a rule.
_PLAIN = re.compile(r"[^*()\\\x00-\x1f\x7f]+")


def updates_of(asked: ApprovalRequested, forbidden: Collection[str]) -> Sequence[Update]:
    """What the CLI suggested, without modes that no session may have; otherwise just the same command.

    Empty where that cannot be said by a rule: then nothing is remembered.
    """
    if asked.suggestions:
        return [
            {**each, "destination": "session"}
            for each in asked.suggestions
            if each.get("type") != "setMode"
            or each.get("mode") not in (*forbidden, "bypassPermissions")
        ]
    command = asked.input.get("command")
    if not isinstance(command, str) or _PLAIN.fullmatch(command) is None:
        return []
    rule = {"toolName": asked.tool_name, "ruleContent": command}
    return [{"type": "addRules", "rules": [rule], "behavior": "allow", "destination": "session"}]


def remembered(config: SessionConfig, updates: Sequence[Update]) -> SessionConfig:
    """The configuration with what was allowed; what is of another form holds for the process alone."""
    for update in updates:
        match update:
            case {"type": "addRules", "behavior": "allow", "rules": list(rules)}:
                new = [rule for each in rules if (rule := _rule(each)) is not None]
                known = dict.fromkeys((*config.allowed_tools, *new))
                config = replace(config, allowed_tools=tuple(known)[:MOST_RULES])
            case {"type": "setMode", "mode": str(mode)} if mode in get_args(PermissionMode):
                config = replace(config, permission_mode=msgspec.convert(mode, PermissionMode))
    return config


def _rule(rule: object) -> str | None:
    match rule:
        case {"toolName": str(tool), "ruleContent": str(content)}:
            text = f"{tool}({content})"
        case {"toolName": str(tool)}:
            text = tool
        case _:
            return None
    return text if is_rule(text) else None
