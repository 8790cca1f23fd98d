"""Conversations that outlive a stream, a process and the service: their events, their rows, their leases."""

from warmline_service.sessions._config import (
    CLIENT_SERVER,
    MOST_RULES,
    ClientTool,
    SessionConfig,
    is_rule,
)
from warmline_service.sessions._feed import Feed, Subscription
from warmline_service.sessions._files import (
    FileInfo,
    PlacedFile,
    check_file,
    chunks_of,
    list_files,
)
from warmline_service.sessions._journal import Journal
from warmline_service.sessions._keeper import Keeper
from warmline_service.sessions._mcp import MCP_WAIT, McpServer, McpWait
from warmline_service.sessions._message import Media, ToolOutput, UserMessage
from warmline_service.sessions._portable import Export, Portable
from warmline_service.sessions._secrets import PayingCredential, Secrets
from warmline_service.sessions._session import Session
from warmline_service.sessions._sessions import Sessions, config_of
from warmline_service.sessions._workspaces import Workspaces

__all__ = [
    "CLIENT_SERVER",
    "MCP_WAIT",
    "MOST_RULES",
    "ClientTool",
    "Export",
    "Feed",
    "FileInfo",
    "Journal",
    "Keeper",
    "McpServer",
    "McpWait",
    "Media",
    "PayingCredential",
    "PlacedFile",
    "Portable",
    "Secrets",
    "Session",
    "SessionConfig",
    "Sessions",
    "Subscription",
    "ToolOutput",
    "UserMessage",
    "Workspaces",
    "check_file",
    "chunks_of",
    "config_of",
    "is_rule",
    "list_files",
]
