"""How requests to a caller's server go out: to checked addresses only, and what comes back is bounded."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Callable
from typing import Literal

import httpx2

from warmline_service.addresses import AddressRefused, Resolver
from warmline_service.config import McpSettings
from warmline_service.mcp._bodies import Bounded, Paced
from warmline_service.mcp._state import MOST_CALLS

# Beside calls the connection looks at the server and listens to it.
_LIMITS = httpx2.Limits(
    max_connections=MOST_CALLS + 16, max_keepalive_connections=8, keepalive_expiry=60.0
)
# Saying good-bye is a courtesy.
_PARTING = 2.0
_AN_ERROR = 400
# Answers that are taken apart on the loop at once: of a list of tools, a server's greeting.
_LISTS = (b'"tools/list"', b'"initialize"', b'"server/discover"')
_HEAD = 256
_LIST_BYTES = 1024 * 1024


class GuardedTransport(httpx2.AsyncBaseTransport):
    """Looks its host up itself, once, and connects to just the address that was checked.

    `status` is that of the last response which says how the server is. `hung_up`: an older server's
    stream of answers has ended, or something could not be sent, so that no answer will come; `on_change`
    is called then.
    """

    def __init__(
        self,
        kind: Literal["http", "sse"],
        owner: str,
        settings: McpSettings,
        resolver: Resolver,
        on_change: Callable[[], None],
    ) -> None:
        self._older = kind == "sse"
        self._owner = owner
        self._settings = settings
        self._resolver = resolver
        self._on_change = on_change
        self._address: dict[tuple[str, int], str] = {}
        self._inner = httpx2.AsyncHTTPTransport(
            verify=_trust(settings), trust_env=False, limits=_LIMITS
        )
        self.status = 0
        self.hung_up = False

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        """Send it. Raises AddressRefused, and what httpx2 raises."""
        sent = await self._pinned(request)
        try:
            response = await self._inner.handle_async_request(sent)
        except httpx2.TransportError:
            self._end()  # The library waits on for the answer to what could not be sent.
            raise
        self._note(request, response)
        if response.headers.get("content-encoding", "identity").lower() != "identity":
            await response.aclose()
            raise httpx2.DecodingError("it compresses what it was asked not to")
        stream = response.stream
        assert isinstance(stream, httpx2.AsyncByteStream)
        response.stream = self._bounded(request, response, stream)
        return response

    async def aclose(self) -> None:
        """Close every connection."""
        await self._inner.aclose()

    async def _pinned(self, request: httpx2.Request) -> httpx2.Request:
        """The request to the address; the server is told, and proves, the name that was asked for."""
        url, settings = request.url, self._settings
        if url.scheme != "https" and not (url.scheme == "http" and settings.allow_http):
            raise AddressRefused("its address is not https")
        # As it is sent: in another form it may be another's.
        host = url.raw_host.decode("ascii")
        port = url.port or (443 if url.scheme == "https" else 80)
        address = self._address.get((host, port))
        if address is None:
            timeout = settings.connect_timeout
            address = await self._resolver.resolve(self._owner, host, port, timeout)
            self._address[host, port] = address
        extensions = dict(request.extensions) | {"sni_hostname": host}
        if request.method == "DELETE":
            extensions["timeout"] = dict.fromkeys(("connect", "read", "write", "pool"), _PARTING)
        return httpx2.Request(
            request.method,
            url.copy_with(host=address),
            headers=request.headers,
            stream=request.stream,
            extensions=extensions,
        )

    def _note(self, request: httpx2.Request, response: httpx2.Response) -> None:
        # Of the newer kind a GET may be refused, which means nothing.
        if request.method == "POST" or (self._older and request.method == "GET"):
            self.status = response.status_code
            if self.status >= _AN_ERROR:
                self._end()

    def _bounded(
        self, request: httpx2.Request, response: httpx2.Response, stream: httpx2.AsyncByteStream
    ) -> httpx2.AsyncByteStream:
        """The answer's body: a stream of events only where the library reads it as one."""
        settings, method = self._settings, request.method
        until = asyncio.get_running_loop().time() + settings.call_timeout
        if method == "DELETE":
            return Bounded(stream, _LIST_BYTES, until - settings.call_timeout + _PARTING)
        if method == "POST" and _asks_for_a_list(request):
            return Bounded(stream, _LIST_BYTES, until)
        kind = response.headers.get("content-type", "").lower()
        good = response.status_code == httpx2.codes.OK and kind.startswith("text/event-stream")
        if good and (method == "GET" or not self._older):
            # How much an event has is bounded where they are taken apart.
            ends = self._older and method == "GET"
            return Paced(stream, settings.message_bytes, self._end if ends else None)
        return Bounded(stream, settings.message_bytes, until)

    def _end(self) -> None:
        if self._older:
            self.hung_up = True
            self._on_change()


def _asks_for_a_list(request: httpx2.Request) -> bool:
    try:
        body = request.content[:_HEAD]
    except httpx2.RequestNotRead:
        return False  # A body that is streamed is none of the library's.
    return any(word in body for word in _LISTS)


def _trust(settings: McpSettings) -> ssl.SSLContext:
    return ssl.create_default_context(cafile=settings.ca_file)
