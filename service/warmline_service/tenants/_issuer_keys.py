"""The public keys of an issuer of tokens: fetched when wanted, kept, and fetched again when they change."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import aiohttp
import jwt
import msgspec
import structlog

from warmline_service.config import IssuerSettings, is_trusted_url
from warmline_service.errors import Reason, WarmlineError

_log = structlog.get_logger(__name__)

# Looked at again after so long, and without success good for so long, in seconds.
_FRESH = 3600.0
_GOOD = 24 * 3600.0
# Tokens with a key that nobody knows make us ask the issuer no more often than this.
_PAUSE = 30.0
# After a failure whoever comes tries again, a little later.
_PAUSE_AFTER_FAILURE = 5.0
_TIMEOUT = 10.0
_BYTES = 1024 * 1024
_MOST_KEYS = 100
_RSA_BITS = 2048
_RSA = ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512")
_CURVES = {"P-256": ("ES256",), "P-384": ("ES384",), "P-521": ("ES512",), "Ed25519": ("EdDSA",)}
_PUBLIC = ("kty", "n", "e", "crv", "x", "y")

# By the name of the key and the algorithm.
Keys = Mapping[tuple[str, str], jwt.PyJWK]


class IssuerKeys:
    """One issuer's keys. `aclose` ends what is under way; `session` belongs to others."""

    def __init__(
        self,
        settings: IssuerSettings,
        session: Callable[[], aiohttp.ClientSession],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._settings = settings
        self._session = session
        self._clock = clock
        self._keys: Keys = {}
        self._fetched_at = float("-inf")
        self._tried_at = float("-inf")
        self._failed = False
        self._fetching: asyncio.Task[None] | None = None

    async def find(self, name: str, algorithm: str) -> jwt.PyJWK | None:
        """The key of a token: by its name, or without one the only key there is for the algorithm.

        None where the issuer has none. Raises ISSUER_UNAVAILABLE where that cannot be said now.
        """
        if self._age >= _FRESH:
            self._begin()  # What is kept is good meanwhile.
        if self._age >= _GOOD or self._look_up(name, algorithm) is None:
            await self._fetch()
        if self._age >= _GOOD:
            raise _unavailable()
        found = self._look_up(name, algorithm)
        if found is None and self._failed:
            raise _unavailable()
        return found

    async def aclose(self) -> None:
        """Give up what is under way."""
        if self._fetching is not None:
            self._fetching.cancel()
            await asyncio.wait({self._fetching})

    @property
    def _age(self) -> float:
        return self._clock() - self._fetched_at

    def _look_up(self, name: str, algorithm: str) -> jwt.PyJWK | None:
        if name:
            return self._keys.get((name, algorithm))
        fitting = [key for (_, each), key in self._keys.items() if each == algorithm]
        return fitting[0] if len(fitting) == 1 else None

    async def _fetch(self) -> None:
        """Wait for new keys, if it is time to ask for some."""
        fetching = self._begin()
        if fetching is not None:
            # Others wait for the same, and whoever is given up takes it from none of them.
            await asyncio.shield(fetching)

    def _begin(self) -> asyncio.Task[None] | None:
        if self._fetching is not None:
            return self._fetching
        pause = _PAUSE_AFTER_FAILURE if self._failed else _PAUSE
        if self._clock() - self._tried_at < pause:
            return None
        self._tried_at = self._clock()
        self._fetching = asyncio.create_task(self._replace())
        return self._fetching

    async def _replace(self) -> None:
        try:
            async with asyncio.timeout(_TIMEOUT):
                self._keys = keys_of(await self._get(await self._url()), self._settings.algorithms)
        except (aiohttp.ClientError, OSError, ValueError) as error:
            # A TimeoutError is an OSError. What is kept stays good for its time.
            self._failed = True
            _log.warning(
                "keys of an issuer not fetched", issuer=self._settings.issuer, error=repr(error)
            )
        else:
            self._failed = False
            self._fetched_at = self._clock()
            _log.info(
                "keys of an issuer fetched", issuer=self._settings.issuer, keys=len(self._keys)
            )
        finally:
            self._fetching = None

    async def _url(self) -> str:
        settings = self._settings
        if settings.jwks_url is not None:
            return settings.jwks_url
        found = await self._get(f"{settings.issuer.rstrip('/')}/.well-known/openid-configuration")
        if found.get("issuer") != settings.issuer:
            raise ValueError("the discovery document is another issuer's")
        url = found.get("jwks_uri")
        if not isinstance(url, str) or not is_trusted_url(url):
            raise ValueError("the discovery document has no jwks_uri by https")
        return url

    async def _get(self, url: str) -> dict[str, Any]:
        async with self._session().get(url, allow_redirects=False) as response:
            if response.status != 200:
                raise ValueError(f"{url} answered {response.status}")
            data = bytearray()
            async for chunk in response.content.iter_any():
                data += chunk
                if len(data) > _BYTES:
                    raise ValueError(f"{url} answered with more than {_BYTES} bytes")
        return _object_of(bytes(data))


def keys_of(found: Mapping[str, Any], allowed: frozenset[str]) -> Keys:
    """The keys of a JWK set that verify signatures by allowed algorithms; what is none is left out."""
    entries = found.get("keys")
    if not isinstance(entries, list) or len(entries) > _MOST_KEYS:
        raise ValueError(f"a JWK set has a list of at most {_MOST_KEYS} keys")
    return {key: value for entry in entries for key, value in _usable(entry, allowed)}


def _usable(entry: Any, allowed: frozenset[str]) -> Iterator[tuple[tuple[str, str], jwt.PyJWK]]:
    if not isinstance(entry, dict) or entry.get("use", "sig") != "sig":
        return
    curve = entry.get("crv")
    able = (
        _RSA if entry.get("kty") == "RSA" else _CURVES.get(curve) if isinstance(curve, str) else ()
    )
    # A private part is nobody's business, least of all that of a service which only verifies.
    public = {name: entry[name] for name in _PUBLIC if name in entry}
    for algorithm in able or ():
        if algorithm not in allowed or entry.get("alg", algorithm) != algorithm:
            continue
        try:
            key = jwt.PyJWK(public, algorithm)
        except (jwt.PyJWTError, ValueError, TypeError, AttributeError):
            continue
        if algorithm in _RSA and key.key.key_size < _RSA_BITS:
            continue
        yield (str(entry.get("kid", "")), algorithm), key


def _object_of(data: bytes) -> dict[str, Any]:
    try:
        found = msgspec.json.decode(data)
    except RecursionError as error:
        raise ValueError("too deep") from error
    if not isinstance(found, dict):
        raise ValueError("not an object")  # noqa: TRY004  # what came over the wire is wrong
    return found


def _unavailable() -> WarmlineError:
    return WarmlineError(
        Reason.ISSUER_UNAVAILABLE,
        "The keys of the token's issuer cannot be had at the moment.",
        retry_after=_PAUSE_AFTER_FAILURE,
    )
