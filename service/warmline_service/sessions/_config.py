"""How a session is set up, after every field was checked at the edge."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from warmline_service.sessions._mcp import McpServer, McpWait
from warmline_service.sessions._secrets import PayingCredential
from warmline_service.worker import (
    Agent,
    Debug,
    Options,
    PermissionMode,
    Plugin,
    SettingSource,
    SystemPrompt,
)

# A tool's name and, in brackets, what its input has to look like: one line of printable letters.
_RULE = re.compile(r"[A-Za-z][A-Za-z0-9_*-]{0,127}(\([^\x00-\x1f\x7f]+\))?")
_RULE_LETTERS = 512
# Rules of one kind that a session may have.
MOST_RULES = 128


def is_rule(text: str) -> bool:
    """Whether it can be a rule over tools, such as `Bash(git log:*)`."""
    return len(text) <= _RULE_LETTERS and _RULE.fullmatch(text) is not None


# What the model sees before the names of the caller's tools.
CLIENT_SERVER = "client"


@dataclass(frozen=True)
class ClientTool:
    """A tool that the caller runs; `schema` is of its input, `timeout` is seconds.

    Several calls of a `read_only` one may wait at once.
    """

    name: str
    description: str
    schema: Mapping[str, Any]
    timeout: float
    read_only: bool = False


@dataclass(frozen=True)
class SessionConfig:
    """A checked session configuration; None means the service's default. Timeouts are seconds."""

    model: str | None = None
    system_prompt: SystemPrompt | None = None
    turn_timeout: float | None = None
    stall_timeout: float | None = None
    # The name of a workspace of the tenant's; empty for one of the session's own.
    workspace: str = ""
    # Others of them that it may use as well.
    add_directories: tuple[str, ...] = ()
    fallback_models: tuple[str, ...] = ()
    agents: Mapping[str, Agent] = field(default_factory=dict)
    # The one of them that leads; empty for none.
    agent: str = ""
    # The built-in tools that the model is told of; None for all.
    tools: tuple[str, ...] | None = None
    allowed_tools: tuple[str, ...] = ()
    disallowed_tools: tuple[str, ...] = ()
    permission_mode: PermissionMode = "default"
    effort: str = ""
    thinking_tokens: int | None = None
    output_schema: Mapping[str, Any] | None = None
    betas: tuple[str, ...] = ()
    max_turns: int = 0
    max_budget_usd: float = 0.0
    bare: bool = False
    plugins: tuple[Plugin, ...] = ()
    setting_sources: tuple[SettingSource, ...] = ()
    # The CLI's own, by its names.
    settings: Mapping[str, Any] = field(default_factory=dict)
    debug: Debug | None = None
    # Whether somebody is asked for approvals, and for how long each time; whether that may take so long
    # that no process waits with it.
    asks: bool = False
    approval_timeout: float | None = None
    defers: bool = False
    client_tools: tuple[ClientTool, ...] = ()
    mcp_servers: Mapping[str, McpServer] = field(default_factory=dict)
    mcp_wait: McpWait = field(default_factory=McpWait)
    credential: PayingCredential = field(default_factory=PayingCredential)

    @property
    def may_have_hooks(self) -> bool:
        """Whether something may act on a message before the model is asked."""
        return bool("hooks" in self.settings or self.setting_sources or self.plugins)

    @property
    def options(self) -> Options:
        """What is bound to each process of the session."""
        return Options(
            agents=self.agents,
            output_schema=self.output_schema,
            # The caller's own tools need no approval of the caller's.
            allowed=(
                *self.allowed_tools,
                *([f"mcp__{CLIENT_SERVER}"] if self.client_tools else []),
            ),
            disallowed=self.disallowed_tools,
            more_settings=self.settings,
            effort=self.effort,
            permission_mode=self.permission_mode,
            thinking_tokens=self.thinking_tokens,
        )
