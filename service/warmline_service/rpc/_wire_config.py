"""A session's configuration as callers see it: what they gave, and nothing that is secret."""

from __future__ import annotations

from collections.abc import Mapping

from warmline.v1 import session_config_pb2 as pb

from warmline_service.rpc._struct import fill_struct
from warmline_service.sessions import MCP_WAIT, SessionConfig
from warmline_service.worker import Agent, SystemPrompt

MODES = {
    "plan": pb.PERMISSION_MODE_PLAN,
    "acceptEdits": pb.PERMISSION_MODE_ACCEPT_EDITS,
    "dontAsk": pb.PERMISSION_MODE_DONT_ASK,
    "auto": pb.PERMISSION_MODE_AUTO,
    "bypassPermissions": pb.PERMISSION_MODE_BYPASS,
}


def wire_config(config: SessionConfig) -> pb.SessionConfig:
    """The message that `config_of` would make this configuration from."""
    out = pb.SessionConfig(
        model=config.model or "",
        fallback_models=config.fallback_models,
        agent=config.agent,
        betas=config.betas,
        permission_mode=MODES.get(config.permission_mode, pb.PERMISSION_MODE_UNSPECIFIED),
        profile=pb.PROFILE_BARE if config.bare else pb.PROFILE_UNSPECIFIED,
    )
    _equipment(out, config)
    if config.system_prompt is not None:
        _prompt(out.system_prompt, config.system_prompt)
    if config.workspace:
        out.workspace.name = config.workspace
    _agents(out, config.agents)
    _tools(out, config)
    _limits(out, config)
    if config.asks:
        defers = config.defers
        out.approvals.mode = pb.Approvals.MODE_DEFER if defers else pb.Approvals.MODE_STREAM
    if config.approval_timeout is not None:
        out.approvals.timeout.FromNanoseconds(round(config.approval_timeout * 1e9))
    for tool in config.client_tools:
        each = out.client_tools.add(name=tool.name, description=tool.description)
        each.read_only = tool.read_only
        fill_struct(each.input_schema, tool.schema)
        each.timeout.FromNanoseconds(round(tool.timeout * 1e9))
    _servers(out, config)
    for kind in config.credential.names:
        setattr(out.credential, kind, "")
    if config.credential.name:
        out.credential.name = config.credential.name
    if config.effort:
        out.reasoning.effort = pb.Effort.Value(f"EFFORT_{config.effort.upper()}")
    if config.thinking_tokens is not None:
        out.reasoning.budget_tokens = config.thinking_tokens
    if config.output_schema is not None:
        fill_struct(out.output_schema, config.output_schema)
    return out


def _prompt(out: pb.SystemPrompt, prompt: SystemPrompt) -> None:
    if prompt.same_everywhere:
        out.preset.append = prompt.text
        out.preset.exclude_dynamic_sections = True
    else:
        setattr(out, prompt.kind, prompt.text)


def _agents(out: pb.SessionConfig, agents: Mapping[str, Agent]) -> None:
    for name, agent in agents.items():
        each = out.agents[name]
        each.description, each.prompt = agent.description, agent.prompt
        each.model = agent.model or ""
        if agent.tools is not None:
            each.tools.names.extend(agent.tools)
            each.tools.SetInParent()


def _tools(out: pb.SessionConfig, config: SessionConfig) -> None:
    if config.tools is not None:
        out.tools.available.names.extend(config.tools)
        out.tools.available.SetInParent()
    if config.allowed_tools or config.disallowed_tools:
        out.tools.allowed.extend(config.allowed_tools)
        out.tools.disallowed.extend(config.disallowed_tools)


def _equipment(out: pb.SessionConfig, config: SessionConfig) -> None:
    out.add_directories.extend(config.add_directories)
    for plugin in config.plugins:
        each = out.plugins.add()
        if plugin.name:
            each.name = plugin.name
        for file in plugin.files:
            each.files.files.add(path=file.path, data=file.data)
    for source in config.setting_sources:
        out.setting_sources.append(pb.SettingSource.Value(f"SETTING_SOURCE_{source.upper()}"))
    if config.settings:
        fill_struct(out.settings, config.settings)
    if config.debug is not None:
        out.debug.categories.extend(config.debug.categories)
        out.debug.exclusions.extend(config.debug.exclusions)
        out.debug.SetInParent()


def _servers(out: pb.SessionConfig, config: SessionConfig) -> None:
    """What is secret keeps its name alone."""
    for name, server in config.mcp_servers.items():
        each, hidden = out.mcp_servers[name], dict.fromkeys(server.secrets.names, "")
        each.required = server.required
        if server.kind == "stdio":
            each.stdio.command = server.target
            each.stdio.arguments.extend(server.arguments)
            each.stdio.environment.update(hidden)
        else:
            remote = each.http if server.kind == "http" else each.sse
            remote.url = server.target
            remote.headers.update(hidden)
    wait = config.mcp_wait
    if wait.names is not None:
        out.mcp_wait.mode = pb.McpWait.MODE_NAMED if wait.names else pb.McpWait.MODE_NONE
        out.mcp_wait.names.extend(wait.names)
    if wait.timeout != MCP_WAIT:
        out.mcp_wait.timeout.FromNanoseconds(round(wait.timeout * 1e9))


def _limits(out: pb.SessionConfig, config: SessionConfig) -> None:
    for name in ("turn_timeout", "stall_timeout"):
        seconds = getattr(config, name)
        if seconds is not None:
            getattr(out.limits, name).FromNanoseconds(round(seconds * 1e9))
    if config.max_turns:
        out.limits.max_turns = config.max_turns
    if config.max_budget_usd:
        out.limits.max_budget_usd = config.max_budget_usd
