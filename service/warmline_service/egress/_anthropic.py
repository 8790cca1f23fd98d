"""Passes requests on to an endpoint that speaks Anthropic's Messages API."""

from __future__ import annotations

from collections.abc import AsyncIterable, Mapping

import aiohttp
import structlog
from aiohttp import web
from yarl import URL

from warmline_service.config import MIB, ProviderSettings
from warmline_service.credentials import Wallet
from warmline_service.egress._account import Account
from warmline_service.egress._bodies import (
    MAX_BODY,
    BodyTooLargeError,
    Shelf,
    Upload,
    cut,
    pieces,
)
from warmline_service.egress._credential import Credential, authorize
from warmline_service.egress._faults import UpstreamError, error_response, read_error
from warmline_service.egress._meter import Meter, Reading
from warmline_service.egress._payment import Payment, Payments
from warmline_service.egress._provider import Route
from warmline_service.egress._sse import UsageScanner
from warmline_service.errors import Reason, WarmlineError

_log = structlog.get_logger(__name__)

MAX_CONNECTIONS = 1000
_MAX_ANSWER = 64 * MIB
# Code that the model runs can reach the slot's socket: only these of its headers go out.
_SENT = frozenset({"accept", "content-type", "user-agent", "x-app"})
_SENT_PREFIXES = ("anthropic-", "x-stainless-", "x-claude-code-")
# And only these come back: the others are about the operator's account or about the connection.
_RETURNED = frozenset(
    {"content-type", "request-id", "retry-after", "retry-after-ms", "x-should-retry"}
)
# Of the API, for what the service asks itself: https://docs.anthropic.com/en/api/versioning
_VERSION = "2023-06-01"
_RETURNED_PREFIX = "anthropic-ratelimit-"


class _UpstreamCutError(Exception):
    """The upstream's answer broke off, or was too long."""


class AnthropicProvider:
    """A reverse proxy that puts the credential in, streams both ways and meters what comes back.

    `credential` is the operator's, for accounts without one of their own; `wallet` has those of tenants.
    """

    def __init__(
        self,
        settings: ProviderSettings,
        credential: Credential | None,
        wallet: Wallet | None = None,
    ) -> None:
        self._settings = settings
        self._payments = Payments(credential, wallet)
        self._shelf = Shelf()
        self._base = settings.base_url.rstrip("/")
        self._session: aiohttp.ClientSession | None = None

    async def start(self) -> None:
        """Make the connection pool; nothing is connected yet."""
        # `connect` also bounds the wait for one of the pool's connections.
        timeout = aiohttp.ClientTimeout(
            total=None,
            connect=self._settings.connect_timeout,
            sock_read=self._settings.read_timeout,
        )
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=MAX_CONNECTIONS),
            timeout=timeout,
            cookie_jar=aiohttp.DummyCookieJar(),
            skip_auto_headers=("User-Agent", "Content-Type"),
        )

    async def aclose(self) -> None:
        """Close every connection."""
        if self._session is not None:
            await self._session.close()

    async def forward(
        self, request: web.BaseRequest, route: Route, account: Account
    ) -> web.StreamResponse:
        """Send a request on and stream the answer back."""
        # Counting tokens uses none.
        reading = (account.meter if route is Route.MESSAGES else Meter()).begin()
        upload = Upload(request)
        if upload.too_large:
            return _refuse(account, 413, str(BodyTooLargeError(MAX_BODY)))
        try:
            payment = await self._payments.first(account)
            upstream = await self._paid(request, upload, account, payment)
        except WarmlineError as error:
            return _unpaid(account, error)
        except (aiohttp.ClientError, OSError) as error:
            return _unreachable(account, upload, error)
        try:
            return await _relay(request, upstream, account, reading)
        finally:
            # Whole answers have given their connection back; of any other this is the end, also
            # where the CLI was interrupted: the provider must stop writing at once.
            upstream.close()

    async def count(self, body: bytes, account: Account) -> tuple[int, bytes]:
        """Ask how many tokens a request would have; 502 or 504 where there is no answer."""
        payment = await self._payments.first(account)
        headers = {"content-type": "application/json", "anthropic-version": _VERSION}
        authorize(headers, payment.credential)
        try:
            async with self._client.post(
                self._base + Route.COUNT_TOKENS.value,
                headers=headers,
                data=body,
                allow_redirects=False,
            ) as upstream:
                return upstream.status, await _whole(upstream)
        except TimeoutError:
            return 504, b""
        except (aiohttp.ClientError, OSError, _UpstreamCutError) as error:
            _log.warning("upstream_unreachable", error=type(error).__name__)
            return 502, b""

    async def _paid(
        self, request: web.BaseRequest, upload: Upload, account: Account, payment: Payment
    ) -> aiohttp.ClientResponse:
        """The provider's answer: where it refuses a stored token, the answer to another one.

        Nothing has been sent back by then.
        """
        with self._shelf.room(request) as room:
            kept = None
            if room and payment.is_renewable:
                kept = b"".join([piece async for piece in upload])
            upstream = await self._send(request, upload if kept is None else pieces(kept), payment)
            if upstream.status != 401 or not payment.is_renewable:
                return upstream
            try:
                # Also where this request cannot be sent again: the next one has the new token.
                other = await self._payments.another(account, payment)
            except BaseException:
                upstream.close()
                raise
            if other is None or kept is None:
                return upstream
            upstream.close()
            return await self._send(request, pieces(kept), other)

    @property
    def _client(self) -> aiohttp.ClientSession:
        if self._session is None:
            raise RuntimeError("the provider has not been started")
        return self._session

    async def _send(
        self, request: web.BaseRequest, body: AsyncIterable[bytes], payment: Payment
    ) -> aiohttp.ClientResponse:
        return await self._client.request(
            "POST",
            URL(self._base + request.raw_path, encoded=True),
            headers=_headers(request, payment.credential),
            data=body,
            allow_redirects=False,
        )


def _headers(request: web.BaseRequest, credential: Credential | None) -> dict[str, str]:
    headers = {
        name: value
        for name, value in _lowered(request.headers)
        if name in _SENT or name.startswith(_SENT_PREFIXES)
    }
    headers["accept-encoding"] = "identity"
    if request.content_length is not None:
        headers["content-length"] = str(request.content_length)
    authorize(headers, credential)
    return headers


def _lowered(headers: Mapping[str, str]) -> list[tuple[str, str]]:
    return [(name.lower(), value) for name, value in headers.items()]


async def _relay(
    request: web.BaseRequest,
    upstream: aiohttp.ClientResponse,
    account: Account,
    reading: Reading,
) -> web.StreamResponse:
    scanner = UsageScanner(account, reading)
    if upstream.status == 200 and upstream.content_type == "text/event-stream":
        return await _stream(request, upstream, account, scanner)
    try:
        body = await _whole(upstream)
    except _UpstreamCutError as error:
        return _refuse(account, 502, str(error))
    if 300 <= upstream.status < 400:
        return _refuse(
            account, 502, "The provider answered with a redirect, which is not followed."
        )
    if upstream.status >= 400:
        account.fault = read_error(upstream.status, upstream.headers.get("retry-after"), body)
        body = _without_secret(body, upstream)
    else:
        account.fault = None
        scanner.message(body)
        await account.cover()
    return web.Response(status=upstream.status, headers=_returned(upstream), body=body)


async def _stream(
    request: web.BaseRequest,
    upstream: aiohttp.ClientResponse,
    account: Account,
    scanner: UsageScanner,
) -> web.StreamResponse:
    account.fault = None
    response = web.StreamResponse(headers=_returned(upstream))
    await response.prepare(request)
    try:
        while piece := await _piece(upstream):
            # First: the CLI may report its turn's end as soon as it has the last piece.
            scanner.feed(piece)
            await account.cover()
            await response.write(piece)
        scanner.finish()
    except _UpstreamCutError:
        _log.warning("upstream_cut", slot=account.slot_id)
        account.fault = UpstreamError(502, "api_error")
        cut(request)
    return response


async def _piece(upstream: aiohttp.ClientResponse) -> bytes:
    """What has arrived; empty at the end."""
    try:
        return await upstream.content.readany()
    except (aiohttp.ClientError, OSError) as error:
        raise _UpstreamCutError("The provider's answer broke off.") from error


async def _whole(upstream: aiohttp.ClientResponse) -> bytes:
    pieces, size = [], 0
    while piece := await _piece(upstream):
        pieces.append(piece)
        size += len(piece)
        if size > _MAX_ANSWER:
            raise _UpstreamCutError(f"The provider's answer has more than {_MAX_ANSWER} bytes.")
    return b"".join(pieces)


def _returned(upstream: aiohttp.ClientResponse) -> dict[str, str]:
    return {
        name: value
        for name, value in _lowered(upstream.headers)
        if name in _RETURNED or name.startswith(_RETURNED_PREFIX)
    }


def _without_secret(body: bytes, upstream: aiohttp.ClientResponse) -> bytes:
    """An error's text without the credential, which some endpoints repeat."""
    sent = upstream.request_info.headers
    for name in ("x-api-key", "authorization"):
        secret = sent.get(name, "").removeprefix("Bearer ")
        body = body.replace(secret.encode(), b"[redacted]") if secret else body
    return body


def _unpaid(account: Account, error: WarmlineError) -> web.Response:
    """There is nothing to pay with, as `account` says."""
    status = 503 if error.reason is Reason.STORAGE_UNAVAILABLE else 401
    return _refuse(account, status, error.message)


def _unreachable(
    account: Account, upload: Upload, error: aiohttp.ClientError | OSError
) -> web.Response:
    if upload.too_large:
        return _refuse(account, 413, str(BodyTooLargeError(MAX_BODY)))
    # The text of these errors can hold addresses, which are the operator's business.
    _log.warning("upstream_unreachable", slot=account.slot_id, error=type(error).__name__)
    if isinstance(error, TimeoutError):
        return _refuse(account, 504, "The provider did not answer in time.")
    return _refuse(account, 502, "The provider cannot be reached.")


def _refuse(account: Account, status: int, message: str) -> web.Response:
    response = error_response(status, message)
    account.fault = read_error(status, None, b"")
    return response
