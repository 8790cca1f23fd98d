"""A server as the `mcp` library speaks to it. Importing this takes a second: done when it is first needed."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Any

import httpx2
import mcp_types as types
import msgspec
import pydantic
from mcp.client.client import Client
from mcp.client.session import ClientSession
from mcp.client.sse import sse_client
from mcp.client.streamable_http import streamable_http_client
from mcp.client.subscriptions import ListenNotSupportedError, SubscriptionLost
from mcp.shared.exceptions import MCPError

from warmline_service.addresses import AddressRefused, Resolver
from warmline_service.config import McpSettings
from warmline_service.mcp._bodies import TooMuch
from warmline_service.mcp._state import Refused, ServerState, State, Target
from warmline_service.mcp._transport import GuardedTransport

# They would write addresses and headers of callers into the service's log.
for _name in ("client", "mcp", "httpx2", "httpcore2"):
    logging.getLogger(_name).setLevel(logging.CRITICAL + 1)

_INFO = types.Implementation(name="warmline", version="1")
_PAGES, _TOOLS = 50, 512
_TOOLS_BYTES = 1024 * 1024
_NAME_LETTERS = 128
# They are part of every prompt.
_INSTRUCTIONS = 16 * 1024
# As it came: it is for the CLI to understand.
_ANY: pydantic.TypeAdapter[Any] = pydantic.TypeAdapter(dict[str, Any])
# What the CLI may ask of a server beside what the service answers itself.
_REQUESTS: Mapping[str, tuple[type[Any], type[Any]]] = {
    "tools/call": (types.CallToolRequest, types.CallToolRequestParams),
    "resources/list": (types.ListResourcesRequest, types.PaginatedRequestParams),
    "resources/templates/list": (
        types.ListResourceTemplatesRequest,
        types.PaginatedRequestParams,
    ),
    "resources/read": (types.ReadResourceRequest, types.ReadResourceRequestParams),
    "prompts/list": (types.ListPromptsRequest, types.PaginatedRequestParams),
    "prompts/get": (types.GetPromptRequest, types.GetPromptRequestParams),
}
_REFUSALS = dict.fromkeys((401, 403), "it does not accept the headers")
_AN_ERROR = 400
_BROKEN = "it has hung up, or does not speak MCP as it should"


class Remote:
    """A server that has been greeted."""

    def __init__(
        self, client: Client, guard: GuardedTransport, on_change: Callable[[], None]
    ) -> None:
        self._client = client
        self._session: ClientSession = client.session
        self._guard = guard
        self._on_change = on_change

    async def watch(self) -> None:
        """Have each change looked at, and the end of the news: the server may be gone. Never raises.

        Older servers tell of changes unasked.
        """
        try:
            async with self._client.listen(tools_list_changed=True) as news:
                async for _ in news:
                    self._on_change()
        except ListenNotSupportedError:
            return
        except (MCPError, SubscriptionLost, TimeoutError):
            pass  # Looking will tell.
        self._on_change()

    async def look(self) -> ServerState:
        """What it offers. Raises as a request does, and ValueError where it is too much."""
        if self._guard.hung_up:
            raise ConnectionError("the stream of its answers has ended")
        tools: list[Mapping[str, Any]] = []
        cursor, size = None, 0
        for _ in range(_PAGES):
            params = types.PaginatedRequestParams(cursor=cursor) if cursor else None
            page = await self._session.list_tools(params=params)
            for tool in page.tools:
                if len(tools) >= _TOOLS or not 0 < len(tool.name) <= _NAME_LETTERS:
                    raise ValueError("it has too many tools, or one without a good name")
                tools.append(tool.model_dump(mode="json", by_alias=True, exclude_none=True))
                size += len(msgspec.json.encode(tools[-1]))
            if size > _TOOLS_BYTES:
                raise ValueError("it has too many tools")
            cursor = page.next_cursor
            if not cursor:
                break
        can = self._session.server_capabilities
        able: dict[str, Any] = {
            name: {} for name in ("resources", "prompts") if can and getattr(can, name) is not None
        }
        return ServerState(
            State.CONNECTED,
            tools=tuple(tools),
            capabilities=able,
            instructions=(self._session.instructions or "")[:_INSTRUCTIONS],
        )

    async def request(self, method: str, params: Mapping[str, Any]) -> dict[str, Any]:
        """Ask for something and give the result as it came.

        Raises Refused, ValueError for what cannot be asked, ConnectionError where it is lost.
        """
        if method not in _REQUESTS:
            raise Refused(types.METHOD_NOT_FOUND, f"there is no {method[:64]} here")
        kind, with_params = _REQUESTS[method]
        request = kind(params=with_params.model_validate(params, by_name=False))
        try:
            found: dict[str, Any] = await self._session.send_request(request, _ANY)
        except MCPError as error:
            if error.code == types.CONNECTION_CLOSED:
                raise ConnectionError("no answer will come") from error
            raise Refused(error.code, error.message) from error
        if found.get("resultType") == "input_required":
            raise Refused(types.INVALID_REQUEST, "it asks for more input, which nobody here gives")
        return found


class Lost(Exception):  # noqa: N818  # named for what happened
    """The server cannot be had, or not any more: a sentence that tells nothing of its address."""


@asynccontextmanager
async def dial(
    target: Target,
    owner: str,
    settings: McpSettings,
    resolver: Resolver,
    on_change: Callable[[], None],
) -> AsyncIterator[Remote]:
    """Greet a server; `on_change` is called when it says that it offers something else.

    Raises Lost, then and whenever the connection is lost.
    """
    # In a thread: it reads files, of what is trusted and of parts of itself.
    guard = await asyncio.to_thread(
        GuardedTransport, target.kind, owner, settings, resolver, on_change
    )

    async def hear(message: object) -> None:
        if isinstance(message, types.ToolListChangedNotification):
            on_change()

    try:
        async with _streams(target, settings, guard) as (streams, mode):
            async with Client(
                streams, message_handler=hear, client_info=_INFO, mode=mode
            ) as client:
                yield Remote(client, guard, on_change)
    except Exception as error:
        raise Lost(_why(error, settings, guard.status)) from error
    finally:
        await guard.aclose()


@asynccontextmanager
async def _streams(
    target: Target, settings: McpSettings, guard: GuardedTransport
) -> AsyncIterator[tuple[Any, Any]]:
    """The library's transport to the server, and how it is greeted."""
    # How long an answer may take is the caller's of each request to say.
    bounds = httpx2.Timeout(settings.connect_timeout, read=None)

    def client(
        headers: dict[str, str] | None = None,
        timeout: httpx2.Timeout | None = None,
        auth: httpx2.Auth | None = None,
    ) -> httpx2.AsyncClient:
        del timeout, auth  # Ours hold.
        asked = (headers or {}) | {"accept-encoding": "identity", "user-agent": "warmline"}
        return httpx2.AsyncClient(headers=asked, timeout=bounds, transport=guard, trust_env=False)

    headers = dict(target.headers)
    if target.kind == "sse":
        # It is spoken by servers that know of no other greeting.
        yield sse_client(target.url, headers, httpx_client_factory=client), "legacy"
    else:
        async with client(headers) as http:
            most = settings.message_bytes
            streams = streamable_http_client(target.url, http_client=http, max_sse_event_size=most)
            yield streams, "auto"


def _why(error: BaseException, settings: McpSettings, status: int) -> str:
    """Without the server's address, and without whatever else the error may hold."""
    if isinstance(error, BaseExceptionGroup):
        # What came of it, such as a stream that was closed, is among what it was.
        told = [_why(each, settings, status) for each in error.exceptions]
        return next((each for each in told if each != _BROKEN), _BROKEN)
    match error:
        case AddressRefused() | TooMuch() | httpx2.DecodingError():
            return str(error)
        case _ if status in _REFUSALS or status >= _AN_ERROR:
            return f"{_REFUSALS.get(status, 'it answers with an error')} (HTTP {status})"
        case TimeoutError() | httpx2.TimeoutException():
            return f"it did not answer within {settings.connect_timeout:g} s"
        case httpx2.ConnectError() | OSError():
            return "it cannot be reached"
        case ValueError():
            return "it offers too much, or what is no tool"
    return _BROKEN
