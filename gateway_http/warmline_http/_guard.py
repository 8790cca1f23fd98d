"""What every request passes on its way in: its Host, its Origin, its size, and the time that it takes."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Mapping
from urllib.parse import urlsplit

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from warmline_http._addresses import is_loopback
from warmline_http._caller import metadata_of, request_id_of
from warmline_http._failure import Failure
from warmline_http._settings import HttpSettings
from warmline_http._shapes import response_of, shape_of

# No more than a name and a port: a parser of URLs finds a name also after `@` and before `/`.
_HOST = re.compile(
    r"(?:\[(?P<bracketed>[0-9A-Fa-f:.]+)\]|(?P<bare>[A-Za-z0-9._-]+))(?::[0-9]{0,5})?"
)
_WITH_BODY = frozenset({"POST", "PUT", "PATCH"})
_PREFLIGHT = {
    b"access-control-allow-methods": b"GET, POST, PATCH, DELETE, OPTIONS",
    b"access-control-max-age": b"600",
}
_ALLOWED = (
    b"authorization, content-type, x-api-key, x-request-id, last-event-id, anthropic-version, "
    b"anthropic-beta, anthropic-dangerous-direct-browser-access, idempotency-key"
)
# Official SDKs tell of themselves by headers of their own, newer ones by more of them.
_OF_SDKS = re.compile(rb"x-stainless-[a-z0-9-]{1,64}")
_MOST_OF_SDKS = 32
_EXPOSED = b"request-id, x-request-id, retry-after, x-session-id, x-warmline-ignored"


class Guard:
    """Refuses what no route should see, and gives each request its id and its caller's metadata.

    Sets `scope["state"]`: `request_id`, `metadata`, `shape`. A failure that a route raises before it has
    begun to answer is told in the route's own shape.
    """

    def __init__(self, app: ASGIApp, settings: HttpSettings) -> None:
        self._app = app
        self._settings = settings
        self._hosts = {
            settings.host.lower(),
            *(name.lower() for name in settings.hosts),
        }

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve a request, or refuse it."""
        if scope["type"] not in ("http", "websocket"):
            await self._app(scope, receive, send)
            return
        headers: dict[bytes, bytes] = dict(scope["headers"])
        request_id, shape = request_id_of(headers), shape_of(scope["path"], headers)
        state = scope.setdefault("state", {})
        state.update(request_id=request_id, metadata=metadata_of(headers, request_id), shape=shape)
        if scope["type"] == "websocket":
            try:
                self._check(scope, headers)
                await self._app(scope, receive, send)
            except Failure as failure:
                # Before it is accepted: the server answers the handshake by 403.
                await send({"type": "websocket.close", "code": 1008, "reason": failure.reason})
            return
        origin = headers.get(b"origin", b"").lower()
        origin = origin if self._is_allowed(origin) else b""
        sending = _Sending(send, request_id, origin)
        try:
            self._check(scope, headers)
            if origin and scope["method"] == "OPTIONS":
                await sending.preflight(headers.get(b"access-control-request-headers", b""))
            else:
                await self._app(scope, self._bounded(scope, headers, receive), sending)
        except Failure as failure:
            if sending.begun:
                raise
            await response_of(shape, failure, request_id)(scope, receive, sending)

    def _check(self, scope: Scope, headers: Mapping[bytes, bytes]) -> None:
        host = headers.get(b"host", b"").decode("latin-1")
        if not self._is_own_host(host):
            raise Failure(
                403, "HOST_NOT_ALLOWED", "This host is not served here (setting `http.hosts`)."
            )
        origin = headers.get(b"origin", b"").lower()
        foreign = bool(origin) and not self._is_own_origin(origin.decode("latin-1"), host)
        allowed = self._is_allowed(origin)
        fetched_by_another = headers.get(b"sec-fetch-site") in (b"cross-site", b"same-site")
        is_page = headers.get(b"sec-fetch-mode") == b"navigate" and scope["path"] in _PAGES
        if (foreign and not allowed) or (fetched_by_another and not (allowed or is_page)):
            raise Failure(
                403, "ORIGIN_NOT_ALLOWED", "Pages of this origin may not call (`http.origins`)."
            )
        if scope["type"] == "http" and scope["method"] in _WITH_BODY:
            kind = headers.get(b"content-type", b"").split(b";")[0].strip().lower()
            length = headers.get(b"content-length", b"0")
            if kind != b"application/json" and (kind or length != b"0"):
                raise Failure(415, "MEDIA_TYPE", "The body must be `application/json`.")

    def _is_allowed(self, origin: bytes) -> bool:
        return origin.decode("latin-1") in self._settings.origins

    def _is_own_host(self, host: str) -> bool:
        name = _hostname(host)
        # HTTP/1.0 has none; no browser speaks that.
        return bool(name) and (name in self._hosts or is_loopback(name))

    def _is_own_origin(self, origin: str, host: str) -> bool:
        return urlsplit(origin).netloc == host.lower() and origin.startswith(
            ("http://", "https://")
        )

    def _bounded(self, scope: Scope, headers: Mapping[bytes, bytes], receive: Receive) -> Receive:
        limit, timeout = self._settings.body_bytes, self._settings.read_timeout
        declared = headers.get(b"content-length", b"")
        if declared.isdigit() and int(declared) > limit:
            raise _too_large(limit)
        if scope["method"] not in _WITH_BODY:
            return receive
        seen, complete = 0, False
        until = asyncio.get_running_loop().time() + timeout

        async def bounded() -> Message:
            nonlocal seen, complete
            if complete:
                return await receive()
            try:
                async with asyncio.timeout_at(until):
                    message = await receive()
            except TimeoutError:
                text = f"The body did not come within {timeout:g} s."
                raise Failure(408, "BODY_TIMEOUT", text) from None
            seen += len(message.get("body", b""))
            complete = not message.get("more_body", False)
            if seen > limit:
                raise _too_large(limit)
            return message

        return bounded


# Where a link from another page may lead.
_PAGES = frozenset({"/", "/chat", "/dashboard", "/docs", "/redoc"})


class _Sending:
    """Sends, and knows whether the answer has begun; adds what every answer has."""

    def __init__(self, send: Send, request_id: str, origin: bytes) -> None:
        self.begun = False
        self._send = send
        self._more = [
            (b"x-request-id", request_id.encode()),
            (b"x-content-type-options", b"nosniff"),
            (b"referrer-policy", b"no-referrer"),
        ]
        if origin:
            self._more += [
                (b"access-control-allow-origin", origin),
                (b"access-control-expose-headers", _EXPOSED),
            ]
        self._more.append((b"vary", b"origin"))

    async def __call__(self, message: Message) -> None:
        """Send a part of the answer."""
        if message["type"] == "http.response.start":
            self.begun = True
            headers = list(message.get("headers", ()))
            have = {name for name, _ in headers}
            headers += [each for each in self._more if each[0] not in have]
            message = {**message, "headers": headers}
        await self._send(message)

    async def preflight(self, asked: bytes) -> None:
        """Say that the page may call; `asked` are the headers that it means to send."""
        names = (name.strip().lower() for name in asked.split(b","))
        of_sdks = [name for name in names if _OF_SDKS.fullmatch(name)][:_MOST_OF_SDKS]
        allowed = b", ".join((_ALLOWED, *of_sdks))
        headers = [*_PREFLIGHT.items(), (b"access-control-allow-headers", allowed)]
        await self({"type": "http.response.start", "status": 204, "headers": headers})
        await self({"type": "http.response.body", "body": b""})


def _hostname(host: str) -> str:
    found = _HOST.fullmatch(host)
    return (found["bare"] or found["bracketed"]).lower() if found else ""


def _too_large(limit: int) -> Failure:
    return Failure(413, "MESSAGE_TOO_LARGE", f"The body has more than {limit} bytes.")
