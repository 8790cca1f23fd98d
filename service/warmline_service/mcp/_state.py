"""Where a server is, and how it is."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Literal

# Calls of a server at once, of all sessions that share the connection to it.
MOST_CALLS = 48


class State(StrEnum):
    """How a server is. `FAILED` is tried again."""

    CONNECTING = "connecting"
    CONNECTED = "connected"
    FAILED = "failed"


class Refused(Exception):  # noqa: N818  # named for what the server did
    """The server answered a request with an error of its own, by JSON-RPC's code and in its words."""

    def __init__(self, code: int, message: str) -> None:
        super().__init__(message)
        self.code = code
        self.message = message


@dataclass(frozen=True)
class Target:
    """A server by its address; `repr` tells neither that nor the headers: both may hold a secret."""

    kind: Literal["http", "sse"]
    url: str = field(repr=False)
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)

    @property
    def identity(self) -> tuple[str, str, tuple[tuple[str, str], ...]]:
        """Equal where the same connection will do."""
        return self.kind, self.url, tuple(sorted(self.headers.items()))


@dataclass(frozen=True)
class ServerState:
    """How a server is, and what it offers: its tools as it told them, and what it can do beside them."""

    state: State
    error: str = ""
    tools: tuple[Mapping[str, Any], ...] = field(default=(), repr=False)
    capabilities: Mapping[str, Any] = field(default_factory=dict, repr=False)
    instructions: str = field(default="", repr=False)

    @property
    def tool_names(self) -> tuple[str, ...]:
        """The names of its tools."""
        return tuple(str(tool["name"]) for tool in self.tools)
