"""JWTs of issuers that the operator trusts (OpenID Connect): a claim names the tenant."""

from __future__ import annotations

import asyncio
import functools
import time
from collections.abc import Callable, Sequence
from typing import Any

import aiohttp
import jwt

from warmline_service.config import IssuerSettings
from warmline_service.errors import Reason, WarmlineError
from warmline_service.tenants._directory import Directory
from warmline_service.tenants._issuer_keys import IssuerKeys
from warmline_service.tenants._principal import Principal, Shown, tenant_disabled, unknown_caller

# The beginning of `{"` in base64, as every header's is.
_BEGINNING = "eyJ"
_MOST_BYTES = 16 * 1024
_NAME = 64


class TokenCheck:
    """Tokens. `aclose` closes what was connected for their keys."""

    def __init__(
        self,
        issuers: Sequence[IssuerSettings],
        directory: Directory,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._directory = directory
        self._session: aiohttp.ClientSession | None = None
        self._issuers = {
            settings.issuer: (settings, IssuerKeys(settings, self._connected, clock))
            for settings in issuers
        }

    async def aclose(self) -> None:
        """Close every connection."""
        await asyncio.gather(*(keys.aclose() for _, keys in self._issuers.values()))
        if self._session is not None:
            await self._session.close()

    def knows(self, shown: Shown) -> bool:
        """What has three parts, of which the first is a JSON object's."""
        return shown.secret.startswith(_BEGINNING) and shown.secret.count(".") == 2

    async def check(self, shown: Shown) -> Principal:
        """Raises KEY_INVALID, KEY_EXPIRED, TENANT_DISABLED, ISSUER_UNAVAILABLE."""
        token = shown.secret
        header, unproven = _taken_apart(token)
        name = unproven.get("iss")
        known = self._issuers.get(name) if isinstance(name, str) else None
        if known is None:
            raise unknown_caller("The token is of an issuer that is not trusted here.")
        settings, keys = known
        # Before anything else: what the token says of itself must not choose how it is looked at.
        algorithm, key_name = header.get("alg"), header.get("kid", "")
        if algorithm not in settings.algorithms or not isinstance(key_name, str):
            raise unknown_caller("The token is signed in a way that is not allowed here.")
        key = await keys.find(key_name, algorithm)
        if key is None:
            raise unknown_caller("The token's issuer has no such key.")
        return await self._principal(settings, _proven(token, key, settings))

    async def _principal(self, settings: IssuerSettings, claims: dict[str, Any]) -> Principal:
        tenant = claims.get(settings.tenant_claim)
        if not isinstance(tenant, str):
            raise unknown_caller(f"The token's claim `{settings.tenant_claim}` names no tenant.")
        await self._let_in(tenant)
        subject = claims.get("sub")
        shown = subject if isinstance(subject, str) and subject.isprintable() else ""
        by = f"token {shown[:_NAME]}".rstrip()
        # A token is good for a call's beginning: it may end before the conversation does.
        still = functools.partial(self._let_in, tenant)
        return Principal(tenant, by, _scopes(settings, claims), still=still)

    async def _let_in(self, tenant: str) -> None:
        standing = await self._directory.tenant(tenant)
        if standing is None:
            raise unknown_caller("The token names no tenant of this service.")
        if standing.disabled:
            raise tenant_disabled()

    def _connected(self) -> aiohttp.ClientSession:
        if self._session is None:
            self._session = aiohttp.ClientSession(cookie_jar=aiohttp.DummyCookieJar())
        return self._session


def _taken_apart(token: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """What a token says of itself, unproven."""
    try:
        if len(token) > _MOST_BYTES:
            raise jwt.DecodeError("too long")
        found = jwt.decode_complete(token, options={"verify_signature": False})
    except (jwt.PyJWTError, ValueError, TypeError, RecursionError) as error:
        raise unknown_caller("This is no token.") from error
    return found["header"], found["payload"]


def _proven(token: str, key: jwt.PyJWK, settings: IssuerSettings) -> dict[str, Any]:
    try:
        return jwt.decode(
            token,
            key,
            algorithms=[key.algorithm_name],
            audience=settings.audience,
            issuer=settings.issuer,
            leeway=settings.clock_skew,
            options={"require": ["exp", "iss", "aud"]},
        )
    except jwt.ExpiredSignatureError as error:
        raise WarmlineError(Reason.KEY_EXPIRED, "This token is past its expiry.") from error
    except jwt.InvalidAudienceError as error:
        raise unknown_caller("The token is for somebody else than this service.") from error
    except (jwt.PyJWTError, ValueError, TypeError, RecursionError) as error:
        raise unknown_caller("The token is not valid.") from error


def _scopes(settings: IssuerSettings, claims: dict[str, Any]) -> frozenset[str]:
    """The fixed ones, or those of them that the token has."""
    if not settings.scope_claim:
        return frozenset(settings.scopes)
    given = claims.get(settings.scope_claim)
    names = given.split() if isinstance(given, str) else given if isinstance(given, list) else []
    return frozenset(name for name in settings.scopes if name in names)
