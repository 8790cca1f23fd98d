"""MCP servers of callers, connected by the service and lent to their sessions."""

from warmline_service.mcp._bridge import Cancelled, Forward, heard
from warmline_service.mcp._broker import Broker, Lease
from warmline_service.mcp._connection import Connection, Unreachable
from warmline_service.mcp._jsonrpc import (
    INTERNAL_ERROR,
    INVALID_PARAMS,
    METHOD_NOT_FOUND,
    PROTOCOL,
    Reply,
    Request,
    failed_tool,
    failure,
    nothing,
    result,
)
from warmline_service.mcp._state import MOST_CALLS, Refused, ServerState, State, Target

__all__ = [
    "INTERNAL_ERROR",
    "INVALID_PARAMS",
    "METHOD_NOT_FOUND",
    "MOST_CALLS",
    "PROTOCOL",
    "Broker",
    "Cancelled",
    "Connection",
    "Forward",
    "Lease",
    "Refused",
    "Reply",
    "Request",
    "ServerState",
    "State",
    "Target",
    "Unreachable",
    "failed_tool",
    "failure",
    "heard",
    "nothing",
    "result",
]
