"""What `remember` allows: no more than was asked, and nothing that the operator forbids."""

from typing import Any

import pytest
from warmline_service.chat._remember import remembered, updates_of
from warmline_service.sessions import SessionConfig
from warmline_service.sessions.events import ApprovalRequested


def _asked(given: dict[str, Any], *suggestions: dict[str, Any]) -> ApprovalRequested:
    return ApprovalRequested("id", "Bash", given, "call", 0.0, "", suggestions)


def test_a_suggestion_is_taken_for_the_session() -> None:
    """A rule comes into the configuration, wherever the CLI would have kept it."""
    rule = {"toolName": "Bash", "ruleContent": "touch:*"}
    suggestion = {"type": "addRules", "behavior": "allow", "rules": [rule]}
    updates = updates_of(_asked({}, {**suggestion, "destination": "localSettings"}), ())
    assert [each["destination"] for each in updates] == ["session"]
    assert remembered(SessionConfig(), updates).allowed_tools == ("Bash(touch:*)",)


@pytest.mark.parametrize("mode", ["acceptEdits", "bypassPermissions"])
def test_a_mode_that_is_forbidden_is_not_suggested_again(mode: str) -> None:
    """Neither the process nor the session gets it."""
    assert not updates_of(_asked({}, {"type": "setMode", "mode": mode}), {"acceptEdits"})


def test_without_a_suggestion_only_the_same_command_is_allowed() -> None:
    """A command that would be a pattern, or that no rule can say, is not remembered."""
    (update,) = updates_of(_asked({"command": "touch a"}), ())
    assert remembered(SessionConfig(), [update]).allowed_tools == ("Bash(touch a)",)
    for command in ("ls:*", "echo $(id)", "a\nb", "rm *"):
        assert not updates_of(_asked({"command": command}), ())
    assert not updates_of(_asked({"file_path": "/x"}), ())


def test_what_is_no_rule_of_ours_is_not_kept() -> None:
    """It could not be given in a configuration, so it holds for the process alone."""
    rules = [{"toolName": "Bash", "ruleContent": "a\nb"}, {"toolName": "x" * 999}, "nonsense"]
    update = {"type": "addRules", "behavior": "allow", "rules": rules}
    assert remembered(SessionConfig(), [update]) == SessionConfig()


def test_rules_are_bounded() -> None:
    """However often somebody says yes."""
    rules = [{"toolName": "Bash", "ruleContent": f"echo {n}"} for n in range(300)]
    update = {"type": "addRules", "behavior": "allow", "rules": rules}
    assert len(remembered(SessionConfig(), [update]).allowed_tools) == 128
