"""Renews OAuth tokens: once, however many wait for it, here and in other services on the same database."""

from __future__ import annotations

import asyncio
import time
import uuid
from collections.abc import Callable

import structlog
from msgspec import structs

from warmline_service.credentials._endpoint import TIMEOUT, RefreshFailed, TokenEndpoint, Tokens
from warmline_service.credentials._stored import (
    REFUSED,
    UNAVAILABLE,
    Secret,
    Stored,
    not_renewed,
    opened,
    rejected,
)
from warmline_service.store import CredentialRow, CredentialStore, credential_not_found
from warmline_service.vault import Vault

_log = structlog.get_logger(__name__)

# For so many seconds a service has a credential's refresh to itself: the exchange, storing what came, and
# what the clocks of two services may differ. Whoever finds it claimed looks again after a moment.
_CLAIM = TIMEOUT + 20.0
_LOOK_AGAIN = 0.2
# All that a model request waits for it.
_PATIENCE = 60.0
# What has failed is not tried again for so many seconds.
_PAUSE = {REFUSED: 60.0, UNAVAILABLE: 10.0}

_Key = tuple[str, str]


class Refresher:
    """Renews stored tokens. Without an endpoint it renews none."""

    def __init__(
        self,
        store: CredentialStore,
        vault: Vault,
        endpoint: TokenEndpoint | None,
        now: Callable[[], float] = time.time,
    ) -> None:
        self._store = store
        self._vault = vault
        self._endpoint = endpoint
        self._now = now
        self._running: dict[_Key, asyncio.Task[Stored]] = {}
        # What was given in return for a refresh token that is no longer good, while it is not stored.
        self._unstored: dict[_Key, tuple[str, Tokens]] = {}

    def can(self, stored: Stored) -> bool:
        """Whether there is anything to renew it with."""
        return self._endpoint is not None and bool(stored.secret.refresh_token)

    async def renew(self, stored: Stored) -> Stored:
        """What is stored in place of it by then.

        Raises CREDENTIAL_REJECTED where it cannot be renewed, CREDENTIAL_NOT_FOUND where it was removed
        meanwhile, STORAGE_UNAVAILABLE.
        """
        row = stored.row
        if not self.can(stored):
            raise rejected(row.name, "has expired, and there is nothing to renew it with")
        self._raise_failure(row)
        key = (row.tenant, row.name)
        task = self._running.get(key)
        if task is None:
            task = self._running[key] = asyncio.create_task(self._run(stored))
            task.add_done_callback(lambda done: self._ended(key, done))
        # Others wait for the same, and what was given must be stored even if nobody waits any more.
        return await asyncio.shield(task)

    async def aclose(self) -> None:
        """Let what is under way come to its end, within a bound."""
        if self._running:
            _, late = await asyncio.wait(self._running.values(), timeout=_CLAIM)
            for task in late:
                task.cancel()
            if late:
                await asyncio.wait(late)
        if self._endpoint is not None:
            await self._endpoint.aclose()

    def _ended(self, key: _Key, task: asyncio.Task[Stored]) -> None:
        del self._running[key]
        if not task.cancelled():
            task.exception()  # Those who wait have it; there may be none.

    async def _run(self, stored: Stored) -> Stored:
        try:
            async with asyncio.timeout(_PATIENCE):
                return await self._claimed(stored)
        except TimeoutError:
            raise not_renewed(stored.row, UNAVAILABLE, _PAUSE[UNAVAILABLE]) from None

    async def _claimed(self, stored: Stored) -> Stored:
        """Renew it, or wait until another service has."""
        while True:
            now = self._now()
            if await self._store.claim(stored.row, now, now + _CLAIM):
                return await self._exchange(stored)
            other = await self._newer(stored.row)
            if other is not None:
                return other
            await asyncio.sleep(_LOOK_AGAIN)  # The database tells nobody of a change.

    async def _exchange(self, stored: Stored) -> Stored:
        row, key = stored.row, (stored.row.tenant, stored.row.name)
        revision, tokens = self._unstored.get(key, ("", None))
        if tokens is None or revision != row.revision:
            try:
                tokens = await self._ask(stored)
            except RefreshFailed as error:
                return await self._failed(row, error)
            self._unstored[key] = row.revision, tokens
        secret = Secret(tokens.access_token, tokens.refresh_token or stored.secret.refresh_token)
        new = Stored(self._row(row, secret, tokens), secret)
        done = await self._store.refresh(row, new.row)
        del self._unstored[key]
        if not done:
            return await self._newer(row) or new
        _log.info("credential renewed", tenant=row.tenant, credential=row.name)
        return new

    async def _ask(self, stored: Stored) -> Tokens:
        assert self._endpoint is not None
        return await self._endpoint.exchange(stored.secret.refresh_token)

    def _row(self, row: CredentialRow, secret: Secret, tokens: Tokens) -> CredentialRow:
        now = self._now()
        return structs.replace(
            row,
            sealed=secret.seal(self._vault, row.tenant),
            scopes=row.scopes if tokens.scopes is None else tokens.scopes,
            updated_at=now,
            expires_at=None if tokens.lifetime is None else now + tokens.lifetime,
            revision=uuid.uuid4().hex,
            refreshed_at=now,
            claimed_until=0.0,
            failure="",
        )

    async def _failed(self, row: CredentialRow, error: RefreshFailed) -> Stored:
        """Remember it for all services; gives what somebody has stored meanwhile."""
        _log.warning(
            "credential not renewed",
            tenant=row.tenant,
            credential=row.name,
            failure=error.failure,
            detail=error.detail,
        )
        pause = _PAUSE[error.failure]
        await self._store.fail(row, error.failure, self._now() + pause)
        other = await self._newer(row, failing=False)
        if other is None:
            raise not_renewed(row, error.failure, pause) from error
        return other

    async def _newer(self, row: CredentialRow, *, failing: bool = True) -> Stored | None:
        """What is stored in place of it; None where that is still this one."""
        found = await self._store.find(row.tenant, row.name)
        if found is None:
            raise credential_not_found(row.name)
        if found.revision != row.revision:
            return opened(found, self._vault)
        if failing:
            self._raise_failure(found)
        return None

    def _raise_failure(self, row: CredentialRow) -> None:
        """Raise CREDENTIAL_REJECTED where it could not be renewed a moment ago."""
        left = row.claimed_until - self._now()
        if row.failure and left > 0:
            raise not_renewed(row, row.failure, left)
