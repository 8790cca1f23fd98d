"""What a caller answers to a session that waits for it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from warmline_service.sessions import Media


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
