"""A session's configuration from the wire: every field is checked here, and named when it is bad."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import msgspec
from google.protobuf.duration_pb2 import Duration
from google.protobuf.json_format import MessageToDict
from google.protobuf.struct_pb2 import Struct
from warmline.v1 import session_config_pb2 as pb

from warmline_service.errors import field_invalid
from warmline_service.rpc._bounds import check_count, seconds_of
from warmline_service.rpc._json_schema import check_schema
from warmline_service.rpc._parse_credential import credential_of
from warmline_service.rpc._parse_equipment import (
    debug_of,
    directories_of,
    plugins_of,
    sources_of,
    workspace_of,
)
from warmline_service.rpc._parse_mcp import servers_of, wait_of
from warmline_service.rpc._parse_settings import SETTINGS_BYTES, settings_of
from warmline_service.rpc._struct import LEVELS, fits_struct
from warmline_service.sessions import (
    MOST_RULES,
    ClientTool,
    PayingCredential,
    SessionConfig,
    is_rule,
)
from warmline_service.worker import Agent, PermissionMode, SystemPrompt

PROMPT_BYTES = 256 * 1024
_AGENT_PROMPT_BYTES = 64 * 1024
_DESCRIPTION_BYTES = 8 * 1024
_SCHEMA_BYTES = 64 * 1024
_SCHEMAS_BYTES = 256 * 1024
_MODEL = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:/@\[\]-]{0,127}")
_AGENT = re.compile(r"[a-z0-9][a-z0-9-]{0,62}")
_TOOL = re.compile(r"[A-Za-z][A-Za-z0-9_-]{0,127}")
_TURN_TIMEOUT = (1.0, 24 * 3600.0)
_STALL_TIMEOUT = (1.0, 3600.0)
_APPROVAL_TIMEOUT = (1.0, 24 * 3600.0)
_DEFERRED_TIMEOUT = (1.0, 7 * 24 * 3600.0)
_TOOL_TIMEOUT = (1.0, 3600.0)
_DEFAULT_TOOL_TIMEOUT = 60.0
_CLIENT_TOOLS = 64
_CLIENT_TOOL = re.compile(r"[A-Za-z0-9_-]{1,64}")
_AGENTS, _FALLBACKS, _TOOLS, _BETAS = 32, 4, 128, 8
_MAX_TURNS = 1000
_BUDGET = (0.0001, 10_000.0)
_THINKING = (1024, 200_000)
_MODES: Mapping[int, PermissionMode] = {
    pb.PERMISSION_MODE_UNSPECIFIED: "default",
    pb.PERMISSION_MODE_DEFAULT: "default",
    pb.PERMISSION_MODE_PLAN: "plan",
    pb.PERMISSION_MODE_ACCEPT_EDITS: "acceptEdits",
    pb.PERMISSION_MODE_DONT_ASK: "dontAsk",
    pb.PERMISSION_MODE_AUTO: "auto",
    pb.PERMISSION_MODE_BYPASS: "bypassPermissions",
}
# Whether it is the bare one.
_PROFILES: Mapping[int, bool] = {
    pb.PROFILE_UNSPECIFIED: False,
    pb.PROFILE_FULL: False,
    pb.PROFILE_BARE: True,
}
# Whether somebody is asked.
_ASKS: Mapping[int, bool] = {
    pb.Approvals.MODE_UNSPECIFIED: False,
    pb.Approvals.MODE_DENY: False,
    pb.Approvals.MODE_STREAM: True,
    pb.Approvals.MODE_DEFER: True,
}
_EFFORTS: Mapping[int, str] = {
    pb.EFFORT_UNSPECIFIED: "",
    pb.EFFORT_LOW: "low",
    pb.EFFORT_MEDIUM: "medium",
    pb.EFFORT_HIGH: "high",
    pb.EFFORT_XHIGH: "xhigh",
    pb.EFFORT_MAX: "max",
}


def config_of(config: pb.SessionConfig, field: str, *, existing: bool) -> SessionConfig:
    """A checked configuration; it must be empty where an existing session is meant."""
    if existing and config.ByteSize():
        raise field_invalid(field, "must not be set for an existing session")
    agents = _agents_of(config.agents, f"{field}.agents")
    if config.agent and config.agent not in agents:
        raise field_invalid(f"{field}.agent", "is none of `agents`")
    limits, reasoning = config.limits, config.reasoning
    defers = config.approvals.mode == pb.Approvals.MODE_DEFER
    servers = servers_of(config.mcp_servers, f"{field}.mcp_servers")
    return SessionConfig(
        model=model_of(config.model, f"{field}.model"),
        system_prompt=_prompt_of(config.system_prompt, f"{field}.system_prompt"),
        turn_timeout=_seconds(limits, "turn_timeout", f"{field}.limits", _TURN_TIMEOUT),
        stall_timeout=_seconds(limits, "stall_timeout", f"{field}.limits", _STALL_TIMEOUT),
        workspace=workspace_of(config.workspace.name, f"{field}.workspace.name"),
        add_directories=directories_of(config.add_directories, f"{field}.add_directories"),
        plugins=plugins_of(config.plugins, f"{field}.plugins"),
        setting_sources=sources_of(config.setting_sources, f"{field}.setting_sources"),
        settings=settings_of(
            json_of(config.settings, SETTINGS_BYTES, f"{field}.settings"), f"{field}.settings"
        ),
        debug=debug_of(config.debug, f"{field}.debug") if config.HasField("debug") else None,
        fallback_models=_fallbacks_of(config.fallback_models, f"{field}.fallback_models"),
        agents=agents,
        agent=config.agent,
        tools=_available_of(config.tools, "available", f"{field}.tools"),
        allowed_tools=_rules_of(config.tools.allowed, f"{field}.tools.allowed"),
        disallowed_tools=_rules_of(config.tools.disallowed, f"{field}.tools.disallowed"),
        permission_mode=mode_of(config.permission_mode, f"{field}.permission_mode"),
        effort=_known(_EFFORTS, reasoning.effort, f"{field}.reasoning.effort"),
        thinking_tokens=_thinking_of(reasoning, f"{field}.reasoning.budget_tokens"),
        output_schema=_schema_of(config, f"{field}.output_schema"),
        betas=_betas_of(config.betas, f"{field}.betas"),
        max_turns=_max_turns_of(limits.max_turns, f"{field}.limits.max_turns"),
        max_budget_usd=_budget_of(limits.max_budget_usd, f"{field}.limits.max_budget_usd"),
        asks=_known(_ASKS, config.approvals.mode, f"{field}.approvals.mode"),
        approval_timeout=_seconds(
            config.approvals,
            "timeout",
            f"{field}.approvals",
            _DEFERRED_TIMEOUT if defers else _APPROVAL_TIMEOUT,
        ),
        defers=defers,
        client_tools=_client_tools_of(config.client_tools, f"{field}.client_tools"),
        credential=_credential_of(config, f"{field}.credential"),
        mcp_servers=servers,
        mcp_wait=wait_of(config.mcp_wait, servers, f"{field}.mcp_wait"),
        bare=_known(_PROFILES, config.profile, f"{field}.profile"),
    )


def _known(values: Mapping[int, Any], value: int, field: str) -> Any:
    if value not in values:
        raise field_invalid(field, f"{value} is no value that this version knows")
    return values[value]


def mode_of(value: int, field: str) -> PermissionMode:
    """A permission mode, DEFAULT where it is not set."""
    mode: PermissionMode = _known(_MODES, value, field)
    return mode


def model_of(name: str, field: str) -> str | None:
    """A model's name, None where it is empty."""
    if name and not _MODEL.fullmatch(name):
        raise field_invalid(field, "is not of the form of a model id")
    return name or None


def _prompt_of(prompt: pb.SystemPrompt, field: str) -> SystemPrompt | None:
    kind = prompt.WhichOneof("kind")
    if kind is None:
        return None
    if kind == "preset":
        preset = prompt.preset
        if preset.append:
            _check_text(preset.append, PROMPT_BYTES, f"{field}.preset.append")
        elif not preset.exclude_dynamic_sections:
            return None
        return SystemPrompt("append", preset.append, preset.exclude_dynamic_sections)
    text = prompt.replace if kind == "replace" else prompt.append
    _check_text(text, PROMPT_BYTES, f"{field}.{kind}")
    return SystemPrompt(kind, text)


def _check_text(text: str, limit: int, field: str) -> None:
    if not text.strip():
        raise field_invalid(field, "must not be empty")
    if len(text.encode()) > limit:
        raise field_invalid(field, f"is longer than {limit} bytes")


def _fallbacks_of(names: Sequence[str], field: str) -> tuple[str, ...]:
    check_count(names, _FALLBACKS, field)
    for index, name in enumerate(names):
        if not model_of(name, f"{field}[{index}]"):
            raise field_invalid(f"{field}[{index}]", "must not be empty")
    return tuple(names)


def _agents_of(agents: Mapping[str, pb.Agent], field: str) -> dict[str, Agent]:
    check_count(agents, _AGENTS, field)
    # In an order of their own: that of a map is another in every process.
    return {name: _agent_of(name, agents[name], field) for name in sorted(agents)}


def _agent_of(name: str, agent: pb.Agent, field: str) -> Agent:
    if not _AGENT.fullmatch(name):
        raise field_invalid(field, "has a name with more than small letters, digits and `-`, 63")
    field = f"{field}[{name}]"
    _check_text(agent.description, _DESCRIPTION_BYTES, f"{field}.description")
    _check_text(agent.prompt, _AGENT_PROMPT_BYTES, f"{field}.prompt")
    return Agent(
        agent.description,
        agent.prompt,
        _available_of(agent, "tools", field),
        model_of(agent.model, f"{field}.model"),
    )


def _available_of(holder: pb.Tools | pb.Agent, name: str, field: str) -> tuple[str, ...] | None:
    if not holder.HasField(name):  # type: ignore[arg-type]  # the stub wants a literal
        return None
    names = getattr(holder, name).names
    check_count(names, _TOOLS, f"{field}.{name}.names")
    for index, each in enumerate(names):
        if not _TOOL.fullmatch(each):
            raise field_invalid(f"{field}.{name}.names[{index}]", "is not of the form of a tool's")
    return tuple(names)


def _rules_of(rules: Sequence[str], field: str) -> tuple[str, ...]:
    check_count(rules, MOST_RULES, field)
    for index, rule in enumerate(rules):
        if not is_rule(rule):
            text = "must be like `Read` or `Bash(git log:*)`, at most 512 letters"
            raise field_invalid(f"{field}[{index}]", text)
    return tuple(rules)


def _betas_of(betas: Iterable[str], field: str) -> tuple[str, ...]:
    given = tuple(betas)
    check_count(given, _BETAS, field)
    for index, beta in enumerate(given):
        if not _AGENT.fullmatch(beta):
            raise field_invalid(f"{field}[{index}]", "must be small letters, digits and `-`, 63")
    return given


def _thinking_of(reasoning: pb.Reasoning, field: str) -> int | None:
    if not reasoning.HasField("budget_tokens"):
        return None
    tokens, (least, most) = reasoning.budget_tokens, _THINKING
    if tokens and not least <= tokens <= most:
        raise field_invalid(field, f"must be 0 or from {least} to {most}")
    return tokens


def _max_turns_of(value: int, field: str) -> int:
    if value > _MAX_TURNS:
        raise field_invalid(field, f"must be at most {_MAX_TURNS}")
    return value


def _budget_of(value: float, field: str) -> float:
    least, most = _BUDGET
    if value != 0 and not (math.isfinite(value) and least <= value <= most):
        raise field_invalid(field, f"must be from {least} to {most:g}")
    return value


def _client_tools_of(tools: Sequence[pb.ClientTool], field: str) -> tuple[ClientTool, ...]:
    check_count(tools, _CLIENT_TOOLS, field)
    names: set[str] = set()
    for index, tool in enumerate(tools):
        if not _CLIENT_TOOL.fullmatch(tool.name) or tool.name in names:
            text = "must be letters, digits, `_` and `-`, at most 64, and unique"
            raise field_invalid(f"{field}[{index}].name", text)
        names.add(tool.name)
    if sum(tool.input_schema.ByteSize() for tool in tools) > _SCHEMAS_BYTES:
        raise field_invalid(field, f"has schemas of more than {_SCHEMAS_BYTES} bytes together")
    return tuple(_client_tool_of(tool, f"{field}[{index}]") for index, tool in enumerate(tools))


def _client_tool_of(tool: pb.ClientTool, field: str) -> ClientTool:
    _check_text(tool.description, _DESCRIPTION_BYTES, f"{field}.description")
    schema: Mapping[str, Any] = {"type": "object"}
    if tool.HasField("input_schema"):
        schema = _object_schema(tool.input_schema, f"{field}.input_schema")
    timeout = _seconds(tool, "timeout", field, _TOOL_TIMEOUT)
    return ClientTool(
        tool.name, tool.description, schema, timeout or _DEFAULT_TOOL_TIMEOUT, tool.read_only
    )


def _schema_of(config: pb.SessionConfig, field: str) -> Mapping[str, Any] | None:
    if not config.HasField("output_schema"):
        return None
    return _object_schema(config.output_schema, field)


def _object_schema(given: Struct, field: str) -> Mapping[str, Any]:
    schema = json_of(given, _SCHEMA_BYTES, field)
    if not fits_struct(schema):
        raise field_invalid(field, f"is more than {LEVELS} levels deep")
    if schema.get("type") != "object":
        raise field_invalid(field, 'must have `"type": "object"`')
    check_schema(schema, field)
    return schema


def json_of(given: Struct, limit: int, field: str) -> dict[str, Any]:
    """The JSON object that a Struct holds: whole numbers as such, at most `limit` bytes as text."""
    if given.ByteSize() > limit:
        raise field_invalid(field, f"is longer than {limit} bytes")
    try:
        value: dict[str, Any] = _whole(MessageToDict(given))
        text = msgspec.json.encode(value)
    except (ValueError, RecursionError):
        raise field_invalid(field, "holds a number that JSON has not, or is too deep") from None
    if len(text) > limit:
        raise field_invalid(field, f"is longer than {limit} bytes as JSON")
    return value


def _whole(value: Any) -> Any:
    """A Struct knows only doubles; what was an integer is one again."""
    if isinstance(value, dict):
        return {name: _whole(each) for name, each in value.items()}
    if isinstance(value, list):
        return [_whole(each) for each in value]
    if isinstance(value, float) and value.is_integer() and abs(value) < 2**53:
        return int(value)
    return value


def _credential_of(config: pb.SessionConfig, field: str) -> PayingCredential:
    if not config.HasField("credential"):
        return PayingCredential()
    return credential_of(config.credential, field)


def _seconds(
    limits: pb.Limits | pb.Approvals | pb.ClientTool,
    name: str,
    field: str,
    bounds: tuple[float, float],
) -> float | None:
    if not limits.HasField(name):  # type: ignore[arg-type]  # the stub wants a literal
        return None
    duration: Duration = getattr(limits, name)
    return seconds_of(duration, bounds, f"{field}.{name}")
