"""What a conversation tells its process beside model, prompt and directory."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from warmline_service.worker._messages import JsonObject

# The CLI's own words.
PermissionMode = Literal["default", "plan", "acceptEdits", "dontAsk", "auto", "bypassPermissions"]


@dataclass(frozen=True)
class Agent:
    """A sub-agent; None for the session's own tools and model. `repr` hides what it is told."""

    description: str = field(repr=False)
    prompt: str = field(repr=False)
    tools: tuple[str, ...] | None = None
    model: str | None = None

    def as_json(self) -> JsonObject:
        """As the CLI takes it."""
        told: JsonObject = {"description": self.description, "prompt": self.prompt}
        if self.tools is not None:
            told["tools"] = list(self.tools)
        if self.model is not None:
            told["model"] = self.model
        return told


@dataclass(frozen=True)
class Command:
    """An MCP server that the CLI itself runs; `repr` hides what is added to its environment."""

    program: str
    arguments: tuple[str, ...] = ()
    environment: Mapping[str, str] = field(default_factory=dict, repr=False)


# By name: what the CLI runs, or None for what it asks us for by `mcp_message`.
Servers = Mapping[str, Command | None]


def servers_as_json(servers: Servers) -> JsonObject:
    """MCP servers as the CLI takes them."""
    return {name: _server_as_json(name, command) for name, command in servers.items()}


def _server_as_json(name: str, command: Command | None) -> JsonObject:
    told: JsonObject = {"type": "sdk", "name": name}
    if command is not None:
        told = {"type": "stdio", "command": command.program, "args": list(command.arguments)}
        told["env"] = dict(command.environment)
    # Without this the model has to look for its tools before it can call one.
    return told | {"alwaysLoad": True}


@dataclass(frozen=True)
class Options:
    """What can be bound to a process that is already running, at any time or before its first turn.

    `agents` and `output_schema` have to be told before any turn: a primed process does not take them.
    `allowed` and `disallowed` are rules such as `Bash(git log:*)`; `thinking_tokens` is a bound that
    older models take; `directories`, absolute, are open to it like its working directory.
    """

    agents: Mapping[str, Agent] = field(default_factory=dict)
    output_schema: Mapping[str, Any] | None = field(default=None, repr=False)
    allowed: tuple[str, ...] = ()
    disallowed: tuple[str, ...] = ()
    directories: tuple[Path, ...] = ()
    effort: str = ""
    permission_mode: PermissionMode = "default"
    thinking_tokens: int | None = None
    # The CLI's own settings, by its names.
    more_settings: Mapping[str, Any] = field(default_factory=dict)

    @property
    def early(self) -> bool:
        """Whether something has to be told before any turn; what shapes the prompt counts from then on."""
        return bool(self.first or self.more_settings.keys() - {"permissions"})

    @property
    def first(self) -> JsonObject:
        """Fields of the first `initialize`; empty where it need not be sent."""
        told: JsonObject = {}
        if self.agents:
            told["agents"] = {name: agent.as_json() for name, agent in self.agents.items()}
        if self.output_schema is not None:
            told["jsonSchema"] = dict(self.output_schema)
        return told

    @property
    def settings(self) -> JsonObject:
        """The CLI's settings; empty where none have to be applied."""
        told: JsonObject = dict(self.more_settings)
        # Each time it is told, it takes the place of what was told before.
        permissions = {
            "allow": list(self.allowed),
            "deny": list(self.disallowed),
            "additionalDirectories": list(map(str, self.directories)),
            **told.get("permissions", {}),
        }
        if any(permissions.values()):
            told["permissions"] = permissions
        if self.effort:
            told["effortLevel"] = self.effort
        return told
