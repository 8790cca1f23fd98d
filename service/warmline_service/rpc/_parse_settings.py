"""The CLI's own settings from the wire: those that are known to do no harm, each of its type."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

from warmline_service.errors import WarmlineError, field_invalid
from warmline_service.sessions import MOST_RULES, is_rule

SETTINGS_BYTES = 64 * 1024
_WORDS = re.compile(r"[^\W_][\w .:()-]{0,63}")
_TEXT = 1024
_HOOKS, _COMMAND = 32, 4096
_TIMEOUT = (1, 600)
_EVENTS = frozenset(
    (
        "PreToolUse",
        "PostToolUse",
        "UserPromptSubmit",
        "Stop",
        "SubagentStop",
        "PreCompact",
        "SessionStart",
        "SessionEnd",
        "Notification",
    )
)

_Check = Callable[[Any, str], None]


def settings_of(given: Mapping[str, Any], field: str) -> dict[str, Any]:
    """The settings, checked; in an order of their own, since that of a Struct is none."""
    return dict(sorted(_object_of(given, field, _SETTINGS).items()))


def _object_of(given: Any, field: str, known: Mapping[str, _Check]) -> Mapping[str, Any]:
    if not isinstance(given, dict):
        raise field_invalid(field, "must be an object")
    for name, value in given.items():
        if name not in known:
            raise _unknown(name, field, known)
        known[name](value, f"{field}.{name}")
    return given


def _unknown(name: str, field: str, known: Mapping[str, _Check]) -> WarmlineError:
    # A name of the caller's is repeated only where it is plain.
    place = f"{field}.{name}" if re.fullmatch(r"[A-Za-z][A-Za-z0-9]{0,63}", name) else field
    return field_invalid(place, f"is none that can be set here: {', '.join(sorted(known))}")


def _is_bool(value: Any, field: str) -> None:
    if not isinstance(value, bool):
        raise field_invalid(field, "must be true or false")


def _is_words(value: Any, field: str) -> None:
    if not isinstance(value, str) or not _WORDS.fullmatch(value):
        raise field_invalid(field, "must be letters, digits, spaces and `_.:()-`, at most 64")


def _is_text(value: Any, field: str) -> None:
    if not isinstance(value, str) or len(value) > _TEXT:
        raise field_invalid(field, f"must be text of at most {_TEXT} letters")


def _is_attribution(value: Any, field: str) -> None:
    _object_of(value, field, {"commit": _is_text, "pr": _is_text})


def _is_permissions(value: Any, field: str) -> None:
    _object_of(value, field, {"ask": _are_rules})


def _are_rules(value: Any, field: str) -> None:
    for index, rule in enumerate(_list_of(value, field, MOST_RULES)):
        if not isinstance(rule, str) or not is_rule(rule):
            text = "must be like `Read` or `Bash(git log:*)`, at most 512 letters"
            raise field_invalid(f"{field}[{index}]", text)


def _list_of(value: Any, field: str, most: int) -> list[Any]:
    if not isinstance(value, list) or len(value) > most:
        raise field_invalid(field, f"must be a list of at most {most}")
    return value


def _are_hooks(value: Any, field: str) -> None:
    _object_of(value, field, dict.fromkeys(_EVENTS, _are_matchers))


def _are_matchers(value: Any, field: str) -> None:
    for index, matcher in enumerate(_list_of(value, field, _HOOKS)):
        place = f"{field}[{index}]"
        _object_of(matcher, place, {"matcher": _is_text, "hooks": _are_commands})
        if "hooks" not in matcher:
            raise field_invalid(f"{place}.hooks", "must be set")


def _are_commands(value: Any, field: str) -> None:
    for index, hook in enumerate(_list_of(value, field, _HOOKS)):
        place = f"{field}[{index}]"
        known = {"type": _is_command, "command": _is_shell, "timeout": _is_timeout}
        for name in ("type", "command"):
            if name not in _object_of(hook, place, known):
                raise field_invalid(f"{place}.{name}", "must be set")


def _is_command(value: Any, field: str) -> None:
    if value != "command":
        raise field_invalid(field, "must be `command`")


def _is_shell(value: Any, field: str) -> None:
    if not isinstance(value, str) or not value.strip() or len(value) > _COMMAND or "\0" in value:
        raise field_invalid(field, f"must be a command of at most {_COMMAND} letters")


def _is_timeout(value: Any, field: str) -> None:
    low, high = _TIMEOUT
    # True is a number in Python.
    if isinstance(value, bool) or not isinstance(value, int | float) or not low <= value <= high:
        raise field_invalid(field, f"must be from {low} to {high} s")


_SETTINGS: Mapping[str, _Check] = {
    "attribution": _is_attribution,
    "disableBundledSkills": _is_bool,
    "hooks": _are_hooks,
    "includeCoAuthoredBy": _is_bool,
    "includeGitInstructions": _is_bool,
    "language": _is_words,
    "outputStyle": _is_words,
    "permissions": _is_permissions,
    "showThinkingSummaries": _is_bool,
}
