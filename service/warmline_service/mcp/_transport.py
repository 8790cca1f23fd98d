"""How requests to a caller's server go out: to checked addresses only, and what comes back is bounded."""

from __future__ import annotations

import ssl
from collections.abc import AsyncIterator, Callable

import httpx2

from warmline_service.config import McpSettings
from warmline_service.mcp._address import AddressRefused, resolve

# A connection is one session's worth of requests, of many sessions at the most.
_LIMITS = httpx2.Limits(max_connections=32, max_keepalive_connections=8, keepalive_expiry=60.0)
# Saying good-bye is a courtesy.
_AN_ERROR = 400
_PARTING = dict.fromkeys(("connect", "read", "write", "pool"), 2.0)


class TooMuch(httpx2.TransportError):
    """The server sends more at once than it may."""


class GuardedTransport(httpx2.AsyncBaseTransport):
    """Looks every host up itself and connects to just the address that was checked.

    `status` is that of the last response to one of `methods`. With `on_end`, that is called, and `hung_up`
    true, when the stream of events has ended or something could not be sent: no answer will come.
    """

    def __init__(
        self,
        settings: McpSettings,
        methods: frozenset[str],
        on_end: Callable[[], None] | None = None,
    ) -> None:
        self._settings = settings
        self._methods = methods
        self._on_end = on_end
        self.hung_up = False
        self._inner = httpx2.AsyncHTTPTransport(
            verify=_trust(settings), trust_env=False, limits=_LIMITS
        )
        self.status = 0

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        """Send it. Raises AddressRefused, TooMuch, and what httpx2 raises."""
        url, settings = request.url, self._settings
        if url.scheme != "https" and not (url.scheme == "http" and settings.allow_http):
            raise AddressRefused("its address is not https")
        port = url.port or (443 if url.scheme == "https" else 80)
        address = await resolve(url.host, port, settings.allow_networks, settings.connect_timeout)
        try:
            response = await self._inner.handle_async_request(_pinned(request, address))
        except httpx2.TransportError:
            self._ended()  # The library waits on for the answer to what could not be sent.
            raise
        if request.method in self._methods:
            self.status = response.status_code
            if self.status >= _AN_ERROR:
                self._ended()
        if response.headers.get("content-encoding", "identity").lower() != "identity":
            await response.aclose()
            raise TooMuch("it compresses what it was asked not to")
        stream = response.stream
        assert isinstance(stream, httpx2.AsyncByteStream)
        # A stream of events has no end; the bound of each is the client's business.
        if not response.headers.get("content-type", "").lower().startswith("text/event-stream"):
            response.stream = _Bounded(stream, settings.message_bytes)
        elif self._on_end is not None:
            response.stream = _Watched(stream, self._ended)
        return response

    def _ended(self) -> None:
        if self._on_end is not None:
            self.hung_up = True
            self._on_end()

    async def aclose(self) -> None:
        """Close every connection."""
        await self._inner.aclose()


def _pinned(request: httpx2.Request, address: str) -> httpx2.Request:
    """The request to the address; the server is told, and proves, the name that was asked for."""
    extensions = dict(request.extensions) | {"sni_hostname": request.url.host}
    if request.method == "DELETE":
        extensions["timeout"] = _PARTING
    return httpx2.Request(
        request.method,
        request.url.copy_with(host=address),
        headers=request.headers,
        stream=request.stream,
        extensions=extensions,
    )


def _trust(settings: McpSettings) -> ssl.SSLContext:
    return ssl.create_default_context(cafile=settings.ca_file)


class _Bounded(httpx2.AsyncByteStream):
    def __init__(self, inner: httpx2.AsyncByteStream, most: int) -> None:
        self._inner = inner
        self._left = most

    async def __aiter__(self) -> AsyncIterator[bytes]:
        async for piece in self._inner:
            self._left -= len(piece)
            if self._left < 0:
                raise TooMuch("it sends more than it may")
            yield piece

    async def aclose(self) -> None:
        await self._inner.aclose()


class _Watched(httpx2.AsyncByteStream):
    def __init__(self, inner: httpx2.AsyncByteStream, on_end: Callable[[], None]) -> None:
        self._inner = inner
        self._on_end = on_end

    async def __aiter__(self) -> AsyncIterator[bytes]:
        try:
            async for piece in self._inner:
                yield piece
        finally:
            self._on_end()

    async def aclose(self) -> None:
        await self._inner.aclose()
