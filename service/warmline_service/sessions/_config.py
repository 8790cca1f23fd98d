"""How a session is set up, after every field was checked at the edge."""

from __future__ import annotations

from dataclasses import dataclass

from warmline_service.worker import SystemPrompt


@dataclass(frozen=True)
class SessionConfig:
    """A checked session configuration; None means the service's default. Timeouts are seconds."""

    model: str | None = None
    system_prompt: SystemPrompt | None = None
    turn_timeout: float | None = None
    stall_timeout: float | None = None
    # The name of a workspace of the tenant's; empty for one of the session's own.
    workspace: str = ""
