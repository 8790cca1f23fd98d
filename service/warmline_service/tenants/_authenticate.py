"""From what a caller shows to who he is: each way of showing it has a check of its own."""

from __future__ import annotations

import asyncio
import functools
import hmac
import time
from collections.abc import Callable, Sequence
from typing import Protocol

from warmline_service.errors import Reason, WarmlineError
from warmline_service.tenants._keys import KeyRecord, KeyStore, hash_key, key_id
from warmline_service.tenants._principal import (
    DEVELOPER,
    Principal,
    Shown,
    tenant_disabled,
    unknown_caller,
)

# What an unknown key is compared with, so that it takes as long as a known one.
_NOBODY = KeyRecord("", "", hash_key("nobody"), frozenset())


class Check(Protocol):
    """One way of showing who one is."""

    def knows(self, shown: Shown) -> bool:
        """Whether what is shown has this form."""
        ...

    async def check(self, shown: Shown) -> Principal:
        """Who it is. Raises UNAUTHENTICATED's reasons, TENANT_DISABLED, and where it cannot say now."""
        ...


class KeyCheck:
    """API keys; `used` is told of each that let somebody in."""

    def __init__(
        self,
        keys: KeyStore,
        used: Callable[[str], None] = lambda _: None,
        now: Callable[[], float] = time.time,
    ) -> None:
        self._keys = keys
        self._used = used
        self._now = now

    def knows(self, shown: Shown) -> bool:
        """Whatever nobody else knows: its refusal says what to send."""
        del shown
        return True

    async def check(self, shown: Shown) -> Principal:
        """Raises KEY_INVALID, KEY_EXPIRED, TENANT_DISABLED."""
        identifier = key_id(shown.secret)
        found = await self._keys.key(identifier) if identifier else None
        record = found or _NOBODY
        same = hmac.compare_digest(hash_key(shown.secret), record.sha256)
        if found is None or not same:
            raise unknown_caller()
        self._let_in(record)
        still = functools.partial(self._still, record.id)
        return Principal(record.tenant, f"key {record.id}", record.scopes, still=still)

    async def _still(self, key_id: str) -> None:
        record = await self._keys.key(key_id)
        if record is None:
            raise unknown_caller()
        self._let_in(record)

    def _let_in(self, record: KeyRecord) -> None:
        if record.revoked:
            raise unknown_caller("This API key was revoked.")
        if record.expires_at is not None and record.expires_at <= self._now():
            raise WarmlineError(Reason.KEY_EXPIRED, "This API key is past its expiry.")
        if record.disabled:
            raise tenant_disabled()
        self._used(record.id)


class Authenticator:
    """Asks the first check that knows the form of what is shown. Without any everybody is `dev`.

    `changed` is set when somebody who was let in may not be any more.
    """

    def __init__(self, checks: Sequence[Check], changed: asyncio.Event | None = None) -> None:
        self._checks = checks
        self.changed = changed or asyncio.Event()

    async def authenticate(self, shown: Shown) -> Principal:
        """Who calls. Raises what the checks raise, KEY_INVALID where none knows the form."""
        if not self._checks:
            return DEVELOPER
        for check in self._checks:
            if check.knows(shown):
                return await check.check(shown)
        raise unknown_caller()
