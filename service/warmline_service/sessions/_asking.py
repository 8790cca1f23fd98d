"""Events of what a turn waits for: a yes, the result of a tool of the caller's, a server, a key."""

from __future__ import annotations

import enum
from collections.abc import Mapping
from typing import Any

from warmline_service.sessions._tagged import Tagged


class ApprovalRequested(Tagged, frozen=True, tag="approval_requested"):
    """A tool call needs a yes; `size` is the input's as JSON in bytes, `expires_at` Unix time."""

    id: str
    tool_name: str
    input: Mapping[str, Any]
    tool_call_id: str
    expires_at: float
    description: str = ""
    suggestions: tuple[Mapping[str, Any], ...] = ()
    size: int = 0


class ApprovalOutcome(enum.StrEnum):
    """What became of an approval."""

    ALLOWED = "allowed"
    DENIED = "denied"
    EXPIRED = "expired"
    WITHDRAWN = "withdrawn"


class ApprovalResolved(Tagged, frozen=True, tag="approval_resolved"):
    """An approval is not waited for any more."""

    id: str
    outcome: ApprovalOutcome


class ClientToolCalled(Tagged, frozen=True, tag="client_tool_called"):
    """The model calls a tool of the caller's; `size` and `expires_at` as above."""

    id: str
    name: str
    input: Mapping[str, Any]
    tool_call_id: str
    expires_at: float
    size: int = 0


class CallOutcome(enum.StrEnum):
    """What became of a call of the caller's tool."""

    RETURNED = "returned"
    FAILED = "failed"
    EXPIRED = "expired"
    WITHDRAWN = "withdrawn"


class ClientToolReturned(Tagged, frozen=True, tag="client_tool_returned"):
    """Such a call is not waited for any more."""

    id: str
    outcome: CallOutcome


class ServerStatus(Tagged, frozen=True, tag="mcp_server_status"):
    """How an MCP server is: `connecting`, `connected` or `failed`; `error` says why, `tools` are names."""

    name: str
    state: str
    error: str = ""
    tools: tuple[str, ...] = ()


class CredentialRequired(Tagged, frozen=True, tag="credential_required"):
    """The credential that the session pays with is not accepted: its own, or the stored one by `name`."""

    message: str
    name: str = ""
