"""From an `authorization` header to the tenant behind it."""

from __future__ import annotations

import hmac
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime

from warmline_service.errors import Reason, WarmlineError
from warmline_service.tenants._keys import KeyStore, hash_key, key_id

# What an unknown key is compared with, so that it takes as long as a known one.
_NOBODY = hash_key("nobody")


@dataclass(frozen=True)
class Principal:
    """An authenticated caller."""

    tenant: str
    key_id: str
    scopes: frozenset[str]

    def require(self, scope: str) -> None:
        """Raise POLICY_DENIED unless the key has this scope."""
        if scope not in self.scopes:
            raise WarmlineError(
                Reason.POLICY_DENIED,
                f"This key does not have the scope `{scope}`.",
                metadata={"scope": scope},
            )


DEVELOPER = Principal("dev", "none", frozenset({"chat", "read", "admin"}))


def _utc_now() -> datetime:
    return datetime.now(UTC)


class Authenticator:
    """Resolves API keys. Without a key store everybody is the tenant `dev`."""

    def __init__(self, keys: KeyStore | None, now: Callable[[], datetime] = _utc_now) -> None:
        self._keys = keys
        self._now = now

    async def authenticate(self, authorization: str | None) -> Principal:
        """Resolve `Bearer wl_...`; raises KEY_INVALID or KEY_EXPIRED."""
        if self._keys is None:
            return DEVELOPER
        scheme, _, key = (authorization or "").partition(" ")
        identifier = key_id(key.strip()) if scheme.lower() == "bearer" else None
        record = await self._keys.find(identifier) if identifier else None
        expected = record.sha256 if record else _NOBODY
        if not hmac.compare_digest(hash_key(key.strip()), expected) or record is None:
            raise WarmlineError(
                Reason.KEY_INVALID,
                "Send a valid API key as `authorization: Bearer wl_...`.",
            )
        if record.expires_at is not None and record.expires_at <= self._now():
            raise WarmlineError(Reason.KEY_EXPIRED, "This API key is past its expiry.")
        return Principal(record.tenant, record.id, record.scopes)
