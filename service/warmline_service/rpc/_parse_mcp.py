"""MCP servers from the wire, checked: their addresses, headers and commands."""

from __future__ import annotations

import re
from collections.abc import Mapping
from urllib.parse import urlsplit

from warmline.v1 import session_config_pb2 as pb

from warmline_service.errors import field_invalid
from warmline_service.rpc._bounds import check_count, seconds_of
from warmline_service.sessions import CLIENT_SERVER, MCP_WAIT, McpServer, McpWait, Secrets

_SERVERS, _HEADERS, _VARIABLES, _ARGUMENTS = 16, 32, 32, 64
_NAME = re.compile(r"[a-z0-9][a-z0-9-]{0,31}")
_URL_BYTES = 2048
# What stands in a request line and in a header is ASCII that can be seen.
_URL = re.compile(r"https?://[!-~]+")
_HEADER = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]{1,128}")
_HEADER_VALUE = re.compile(r"[!-~]([ -~]*[!-~])?")
_VALUE_BYTES = 8 * 1024
_ARGUMENT_BYTES = 4 * 1024
_PROGRAM = re.compile(r"[^\x00-\x1f\x7f-]([^\x00-\x1f\x7f]{0,1023})")
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,127}")
# What the library sets itself, and what would change where the request goes or how it is framed.
_OUR_HEADERS = frozenset(
    {"accept", "accept-encoding", "connection", "content-encoding", "content-length"}
    | {"content-type", "expect", "host", "keep-alive", "last-event-id", "mcp-protocol-version"}
    | {"mcp-session-id", "proxy-authorization", "proxy-connection", "te", "trailer"}
    | {"transfer-encoding", "upgrade"}
)
# They change how a program is loaded, or are the service's own.
_OUR_VARIABLES = re.compile(
    r"LD_.*|ANTHROPIC_.*|CLAUDE.*|WARMLINE_.*|HOME|PATH|TMPDIR", re.IGNORECASE
)
_TIMEOUT = (0.1, 60.0)


def servers_of(servers: Mapping[str, pb.McpServer], field: str) -> dict[str, McpServer]:
    """Checked servers, by name and in the order of their names."""
    check_count(servers, _SERVERS, field)
    for name in servers:
        if not _NAME.fullmatch(name) or name == CLIENT_SERVER:
            text = f"has a name that is not small letters, digits and `-`, at most 32, or `{CLIENT_SERVER}`"
            raise field_invalid(field, text)
    return {name: _server_of(servers[name], f"{field}[{name}]") for name in sorted(servers)}


def wait_of(wait: pb.McpWait, servers: Mapping[str, McpServer], field: str) -> McpWait:
    """Which servers are waited for, and how long."""
    modes = pb.McpWait
    if wait.mode not in modes.Mode.values():
        raise field_invalid(f"{field}.mode", f"{wait.mode} is no value that this version knows")
    if wait.names and wait.mode != modes.MODE_NAMED:
        raise field_invalid(f"{field}.names", "is only for the mode NAMED")
    for index, name in enumerate(wait.names):
        if name not in servers:
            raise field_invalid(f"{field}.names[{index}]", "is none of `mcp_servers`")
    everybody = wait.mode in (modes.MODE_UNSPECIFIED, modes.MODE_ALL)
    timeout = (
        seconds_of(wait.timeout, _TIMEOUT, f"{field}.timeout")
        if wait.HasField("timeout")
        else MCP_WAIT
    )
    return McpWait(None if everybody else tuple(wait.names), timeout)


def _server_of(server: pb.McpServer, field: str) -> McpServer:
    kind = server.WhichOneof("transport")
    if kind == "stdio":
        return _command_of(server.stdio, server.required, f"{field}.stdio")
    if kind is None:
        raise field_invalid(field, "is neither `http` nor `sse` nor `stdio`")
    remote: pb.McpRemote = getattr(server, kind)
    _check_url(remote.url, f"{field}.{kind}.url")
    secrets = _headers_of(remote.headers, f"{field}.{kind}.headers")
    return McpServer(kind, remote.url, secrets=secrets, required=server.required)


def _check_url(url: str, field: str) -> None:
    if len(url) > _URL_BYTES or not _URL.fullmatch(url):
        raise field_invalid(field, f"must be https://HOST..., ASCII, at most {_URL_BYTES} bytes")
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port
    except ValueError:
        raise field_invalid(field, "has no such host or port as there can be") from None
    if not host or port == 0:
        raise field_invalid(field, "has no host, or the port 0")
    if "@" in parts.netloc:
        raise field_invalid(field, "must not hold a user or a password: use `headers`")
    if "#" in url:
        raise field_invalid(field, "must not have a fragment")


def _headers_of(headers: Mapping[str, str], field: str) -> Secrets:
    check_count(headers, _HEADERS, field)
    for name, value in headers.items():
        if not _HEADER.fullmatch(name):
            raise field_invalid(field, "has a name that no header can have")
        if name.lower() in _OUR_HEADERS:
            raise field_invalid(f"{field}[{name}]", "is not the caller's to set")
        if len(value) > _VALUE_BYTES or not _HEADER_VALUE.fullmatch(value):
            text = f"must be ASCII without spaces at its ends, at most {_VALUE_BYTES} bytes"
            raise field_invalid(f"{field}[{name}]", text)
    if len({name.lower() for name in headers}) < len(headers):
        raise field_invalid(field, "has a name twice: small and large letters are the same")
    return _secrets({name.lower(): value for name, value in headers.items()})


def _command_of(command: pb.McpCommand, required: bool, field: str) -> McpServer:
    if not _PROGRAM.fullmatch(command.command):
        raise field_invalid(f"{field}.command", "must be a program's name or path, at most 1024")
    check_count(command.arguments, _ARGUMENTS, f"{field}.arguments")
    for index, argument in enumerate(command.arguments):
        if len(argument.encode()) > _ARGUMENT_BYTES or "\0" in argument:
            text = f"is longer than {_ARGUMENT_BYTES} bytes, or holds a NUL"
            raise field_invalid(f"{field}.arguments[{index}]", text)
    where = f"{field}.environment"
    check_count(command.environment, _VARIABLES, where)
    for name, value in command.environment.items():
        if not _VARIABLE.fullmatch(name) or _OUR_VARIABLES.fullmatch(name):
            raise field_invalid(
                where, "has a name that no variable can have, or that is not the caller's"
            )
        if len(value.encode()) > _VALUE_BYTES or "\0" in value:
            text = f"is longer than {_VALUE_BYTES} bytes, or holds a NUL"
            raise field_invalid(f"{where}[{name}]", text)
    arguments, secrets = tuple(command.arguments), _secrets(command.environment)
    return McpServer("stdio", command.command, arguments, secrets, required)


def _secrets(values: Mapping[str, str]) -> Secrets:
    return Secrets(tuple(sorted(values)), dict(values)) if values else Secrets()
