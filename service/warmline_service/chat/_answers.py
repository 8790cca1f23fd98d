"""What a caller says in a running session beside messages."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Any

from warmline_service.sessions import McpServer, Media, PayingCredential, SessionConfig
from warmline_service.worker import PermissionMode


@dataclass(frozen=True)
class Allow:
    """A yes; `input` in place of the tool's own, `answers` by the questions' texts."""

    input: Mapping[str, Any] | None = None
    remember: bool = False
    answers: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Deny:
    """A no, and why, for the model."""

    message: str = ""
    interrupt: bool = False


@dataclass(frozen=True)
class ToolAnswer:
    """What a tool of the caller's gave."""

    text: str = ""
    images: tuple[Media, ...] = ()
    is_error: bool = False


@dataclass(frozen=True)
class Change:
    """What a session is to have instead from now on; None where it keeps what it has."""

    model: str | None = None
    permission_mode: PermissionMode | None = None
    mcp_servers: Mapping[str, McpServer] | None = None
    credential: PayingCredential | None = None

    def of(self, config: SessionConfig) -> SessionConfig:
        """The configuration with it."""
        given = {
            each.name: value
            for each in fields(self)
            if (value := getattr(self, each.name)) is not None
        }
        return replace(config, **given)
