"""Requests are checked field by field."""

import contextlib
from typing import Any

import pytest
from google.protobuf.duration_pb2 import Duration
from google.protobuf.json_format import ParseDict
from google.protobuf.message import DecodeError
from hypothesis import given
from hypothesis import strategies as st
from warmline.v1 import chat_service_pb2 as chat_pb
from warmline.v1 import session_config_pb2 as pb
from warmline_service.errors import Reason, WarmlineError
from warmline_service.rpc._parse import (
    detail_of,
    message_of,
    session_id_of,
)
from warmline_service.rpc._parse_config import PROMPT_BYTES, config_of
from warmline_service.rpc._wire_config import wire_config

OBJECT: dict[str, Any] = {"type": "object"}
AGENT: dict[str, Any] = {"description": "d", "prompt": "p"}
TOOL: dict[str, Any] = {"name": "t", "description": "d"}


def _deep(levels: int) -> Any:
    return [_deep(levels - 1)] if levels else 0


def _with_schemas(count: int, size: int) -> list[dict[str, Any]]:
    schema = OBJECT | {"title": "x" * size}
    return [TOOL | {"name": f"t{number}", "inputSchema": schema} for number in range(count)]


# As JSON, and the path below the configuration.
BAD_FIELDS: list[tuple[dict[str, Any], str]] = [
    ({"limits": {"maxTurns": 1001}}, "limits.max_turns"),
    ({"limits": {"maxBudgetUsd": 0.00001}}, "limits.max_budget_usd"),
    ({"limits": {"maxBudgetUsd": "NaN"}}, "limits.max_budget_usd"),
    ({"limits": {"maxBudgetUsd": "-Infinity"}}, "limits.max_budget_usd"),
    ({"workspace": {"name": "../x"}}, "workspace.name"),
    ({"workspace": {"name": "x\n"}}, "workspace.name"),
    ({"fallbackModels": ["opus"] * 5}, "fallback_models"),
    ({"fallbackModels": ["opus", ""]}, "fallback_models[1]"),
    ({"fallbackModels": ["--bare"]}, "fallback_models[0]"),
    ({"agents": {f"a{number}": AGENT for number in range(33)}}, "agents"),
    ({"agents": {"A": AGENT}}, "agents"),
    ({"agents": {"a": AGENT | {"description": " "}}}, "agents[a].description"),
    ({"agents": {"a": AGENT | {"description": "x" * 9000}}}, "agents[a].description"),
    ({"agents": {"a": AGENT | {"prompt": ""}}}, "agents[a].prompt"),
    ({"agents": {"a": AGENT | {"prompt": "x" * 70_000}}}, "agents[a].prompt"),
    ({"agents": {"a": AGENT | {"model": "a,b"}}}, "agents[a].model"),
    ({"agents": {"a": AGENT | {"tools": {"names": ["-x"]}}}}, "agents[a].tools.names[0]"),
    ({"agents": {"a": AGENT}, "agent": "b"}, "agent"),
    ({"tools": {"available": {"names": ["Read", "Ba,sh"]}}}, "tools.available.names[1]"),
    ({"tools": {"available": {"names": ["Read"] * 129}}}, "tools.available.names"),
    ({"tools": {"allowed": ["Bash(a\nb)"]}}, "tools.allowed[0]"),
    ({"tools": {"allowed": [f"Bash({'x' * 512})"]}}, "tools.allowed[0]"),
    ({"tools": {"allowed": ["Read"] * 129}}, "tools.allowed"),
    ({"tools": {"disallowed": ["Read", "Bash("]}}, "tools.disallowed[1]"),
    ({"permissionMode": 77}, "permission_mode"),
    ({"approvals": {"mode": -1}}, "approvals.mode"),
    ({"approvals": {"timeout": "0.5s"}}, "approvals.timeout"),
    ({"clientTools": [TOOL | {"name": f"t{number}"} for number in range(65)]}, "client_tools"),
    ({"clientTools": [TOOL | {"name": "a b"}]}, "client_tools[0].name"),
    ({"clientTools": [TOOL, TOOL]}, "client_tools[1].name"),
    ({"clientTools": [TOOL | {"description": "\n"}]}, "client_tools[0].description"),
    ({"clientTools": [TOOL | {"inputSchema": {}}]}, "client_tools[0].input_schema"),
    ({"clientTools": [TOOL | {"timeout": "3601s"}]}, "client_tools[0].timeout"),
    ({"clientTools": _with_schemas(6, 50_000)}, "client_tools"),
    ({"reasoning": {"effort": 6}}, "reasoning.effort"),
    ({"reasoning": {"budgetTokens": 1023}}, "reasoning.budget_tokens"),
    ({"reasoning": {"budgetTokens": 200_001}}, "reasoning.budget_tokens"),
    ({"outputSchema": {"type": "array"}}, "output_schema"),
    ({"outputSchema": OBJECT | {"title": "x" * 66_000}}, "output_schema"),
    ({"outputSchema": OBJECT | {"required": "x"}}, "output_schema"),
    ({"outputSchema": OBJECT | {"const": _deep(25)}}, "output_schema"),
    ({"betas": ["x"] * 9}, "betas"),
    ({"betas": ["x", "A=1"]}, "betas[1]"),
    ({"profile": 3}, "profile"),
    ({"systemPrompt": {"preset": {"append": "\t"}}}, "system_prompt.preset.append"),
]
BAD_CONFIGS = [
    (pb.SessionConfig(model="--dangerous"), "open.config.model"),
    (pb.SessionConfig(model="a b"), "open.config.model"),
    (pb.SessionConfig(model="x" * 200), "open.config.model"),
    (
        pb.SessionConfig(system_prompt=pb.SystemPrompt(replace=" ")),
        "open.config.system_prompt.replace",
    ),
    (
        pb.SessionConfig(system_prompt=pb.SystemPrompt(append="é" * PROMPT_BYTES)),
        "open.config.system_prompt.append",
    ),
    (
        pb.SessionConfig(limits=pb.Limits(turn_timeout=Duration(seconds=0))),
        "open.config.limits.turn_timeout",
    ),
    (
        pb.SessionConfig(limits=pb.Limits(stall_timeout=Duration(seconds=-(2**40)))),
        "open.config.limits.stall_timeout",
    ),
    *(
        (ParseDict(fields, pb.SessionConfig()), f"open.config.{path}")
        for fields, path in BAD_FIELDS
    ),
]


@pytest.mark.parametrize(("config", "field"), BAD_CONFIGS, ids=range(len(BAD_CONFIGS)))
def test_a_bad_field_is_named(config: pb.SessionConfig, field: str) -> None:
    """INVALID_ARGUMENT says which field, by its path in the request."""
    with pytest.raises(WarmlineError) as caught:
        config_of(config, "open.config", existing=False)
    assert [violation.field for violation in caught.value.violations] == [field]


def test_a_config_for_an_existing_session_is_refused() -> None:
    """What is fixed when a session begins cannot be set again."""
    with pytest.raises(WarmlineError, match="existing session"):
        config_of(pb.SessionConfig(model="opus"), "open.config", existing=True)


def test_an_empty_config_means_the_defaults() -> None:
    """Nothing set, nothing asked for."""
    config = config_of(pb.SessionConfig(), "open.config", existing=False)
    assert (config.model, config.system_prompt, config.turn_timeout) == (None, None, None)


@given(st.binary(max_size=200))
def test_no_bytes_raise_anything_but_a_named_error(data: bytes) -> None:
    """Whatever decodes either passes or is refused by field."""
    config = pb.SessionConfig()
    with contextlib.suppress(DecodeError):
        config = pb.SessionConfig.FromString(data)
    refused = None
    try:
        config_of(config, "open.config", existing=False)
    except WarmlineError as error:
        refused = error
    assert refused is None or (refused.reason is Reason.FIELD_INVALID and refused.violations)


def test_unknown_detail_is_refused() -> None:
    """An enum value that this version does not know is an error, not a default."""
    with pytest.raises(WarmlineError, match="42"):
        detail_of(42, "open.detail")


@pytest.mark.parametrize("value", ["x", "../../etc", "0" * 36, "-" * 36, "\x00"])
def test_a_session_id_is_a_uuid(value: str) -> None:
    """Anything else is refused before it is looked up."""
    with pytest.raises(WarmlineError, match=r"open\.session_id"):
        session_id_of(value, "open.session_id")


def test_a_large_message_is_refused_by_its_limit() -> None:
    """The error says how much is allowed."""
    message = chat_pb.UserMessage(text="x" * 2000)
    with pytest.raises(WarmlineError) as caught:
        message_of(message, "message", 1024)
    assert caught.value.reason is Reason.MESSAGE_TOO_LARGE
    assert caught.value.metadata["limitBytes"] == "1024"


def test_a_schema_as_deep_as_allowed_comes_back_as_it_was() -> None:
    """What is taken is never told otherwise than it was given."""
    given = ParseDict({"outputSchema": OBJECT | {"const": _deep(24)}}, pb.SessionConfig())
    config = config_of(given, "open.config", existing=False)
    assert wire_config(config).output_schema == given.output_schema


def test_the_same_time_is_the_same_number_however_it_is_written() -> None:
    """A duration that is not in its usual form survives a session's export and import."""
    usual, other = (
        Duration(seconds=117, nanos=752_769_420),
        Duration(seconds=116, nanos=1_752_769_420),
    )
    first, second = (
        config_of(pb.SessionConfig(limits=pb.Limits(turn_timeout=each)), "config", existing=False)
        for each in (usual, other)
    )
    assert first == second
