"""Asks an authorization server for new tokens in return for a refresh token (RFC 6749, section 6)."""

from __future__ import annotations

import re
from dataclasses import dataclass, field

import aiohttp
import msgspec

from warmline_service.config import OAuthSettings
from warmline_service.credentials._stored import REFUSED, UNAVAILABLE

# Seconds for the whole exchange.
TIMEOUT = 10.0
_BYTES = 64 * 1024
_CONNECTIONS = 10
_SECRET = re.compile(r"[!-~]{1,8192}")
_LONGEST_LIFE = 10 * 365 * 86400.0
# The server has understood, and says no; whatever else it answers may be otherwise next time.
_REFUSALS = (400, 401, 403)


class RefreshFailed(Exception):  # noqa: N818  # named for what happened
    """There are no new tokens. `failure` is REFUSED or UNAVAILABLE; `detail`, for the log, is no secret."""

    def __init__(self, failure: str, detail: str) -> None:
        super().__init__(f"{failure}: {detail}")
        self.failure = failure
        self.detail = detail


@dataclass(frozen=True)
class Tokens:
    """What the server gave; `refresh_token` is empty where the old one stays, `lifetime` is in seconds."""

    access_token: str = field(repr=False)
    refresh_token: str = field(repr=False)
    lifetime: float | None
    scopes: tuple[str, ...] | None


class _Answer(msgspec.Struct):
    access_token: str
    refresh_token: str | None = None
    expires_in: float | None = None
    scope: str | None = None


class TokenEndpoint:
    """A token endpoint. Nothing is connected before it is used; `aclose` last."""

    def __init__(self, settings: OAuthSettings) -> None:
        self._settings = settings
        self._session: aiohttp.ClientSession | None = None

    async def exchange(self, refresh_token: str) -> Tokens:
        """New tokens, within TIMEOUT seconds. Raises RefreshFailed."""
        asked = {
            "grant_type": "refresh_token",
            "refresh_token": refresh_token,
            "client_id": self._settings.client_id,
        }
        try:
            return tokens_of(await self._ask(asked))
        except (aiohttp.ClientError, OSError) as error:
            # A TimeoutError is an OSError. Only its type: what such a text holds is not known.
            raise RefreshFailed(UNAVAILABLE, type(error).__name__) from error

    async def aclose(self) -> None:
        """Let go of every connection."""
        if self._session is not None:
            await self._session.close()

    async def _ask(self, asked: dict[str, str]) -> bytes:
        form = self._settings.encoding == "form"
        async with self._opened().post(
            self._settings.token_url,
            data=asked if form else None,
            json=None if form else asked,
            headers={"accept": "application/json"},
            allow_redirects=False,
        ) as response:
            if response.status != 200:
                failure = REFUSED if response.status in _REFUSALS else UNAVAILABLE
                raise RefreshFailed(failure, f"status {response.status}")
            body = bytearray()
            async for piece in response.content.iter_any():
                body += piece
                if len(body) > _BYTES:
                    raise RefreshFailed(UNAVAILABLE, f"more than {_BYTES} bytes")
        return bytes(body)

    def _opened(self) -> aiohttp.ClientSession:
        if self._session is None:
            self._session = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(limit=_CONNECTIONS),
                timeout=aiohttp.ClientTimeout(total=TIMEOUT),
                cookie_jar=aiohttp.DummyCookieJar(),
            )
        return self._session


def tokens_of(body: bytes) -> Tokens:
    """What an answer gives; raises RefreshFailed for one in another form."""
    try:
        answer = msgspec.json.decode(body, type=_Answer)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        # Without its cause, whose text may hold a piece of the answer.
        raise RefreshFailed(UNAVAILABLE, "not a token answer") from None
    refresh_token = answer.refresh_token or ""
    for each in (answer.access_token, refresh_token or "none"):
        if not _SECRET.fullmatch(each):
            raise RefreshFailed(UNAVAILABLE, "a token that is none")
    lifetime = answer.expires_in
    if lifetime is not None and not 0 < lifetime <= _LONGEST_LIFE:
        lifetime = None
    scopes = tuple(answer.scope.split()) if answer.scope else None
    return Tokens(answer.access_token, refresh_token, lifetime, scopes)
