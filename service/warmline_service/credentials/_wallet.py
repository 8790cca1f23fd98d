"""What tenants' sessions pay with, where they bring nothing of their own."""

from __future__ import annotations

import asyncio
import time
import uuid
from collections import OrderedDict
from collections.abc import Callable
from typing import NamedTuple

from warmline_service.credentials._endpoint import TokenEndpoint
from warmline_service.credentials._refresh import Refresher
from warmline_service.credentials._stored import API_KEY, OAUTH, Secret, Stored, opened
from warmline_service.errors import Reason, WarmlineError
from warmline_service.store import CredentialRow, CredentialStore, credential_not_found
from warmline_service.vault import Vault

# What another service on the same database has stored counts here after so many seconds.
_TTL = 3.0
_KEPT = 10_000
# While the store cannot be asked, what it said counts for so many seconds.
_OUTAGE = 600.0
# A store that is down is asked again after so many seconds.
_AGAIN = 0.2
# So many seconds before it expires a token is renewed, or a quarter of its life where that is less.
_MARGIN = 300.0
# One that is refused although it is as new as this is not renewed again.
_NEW = 60.0

_Key = tuple[str, str]


class _Kept(NamedTuple):
    stored: Stored | None
    until: float
    # When it was read from the store.
    read_at: float


class Wallet:
    """Stored credentials by tenant and name; an empty name is the tenant's default.

    Everything raises STORAGE_UNAVAILABLE while the store cannot be used; what a running turn asks for, only
    after `patience` seconds. `aclose` before the store.
    """

    def __init__(
        self,
        store: CredentialStore,
        vault: Vault,
        endpoint: TokenEndpoint | None = None,
        now: Callable[[], float] = time.time,
        clock: Callable[[], float] = time.monotonic,
        patience: float = 0.0,
    ) -> None:
        self._store = store
        self._vault = vault
        self._refresher = Refresher(store, vault, endpoint, now)
        self._now = now
        self._clock = clock
        self._patience = patience
        self._kept: OrderedDict[_Key, _Kept] = OrderedDict()
        self._generation = 0

    async def aclose(self) -> None:
        """Let what is being renewed come to its end, within a bound."""
        await self._refresher.aclose()

    async def put(
        self,
        tenant: str,
        name: str,
        secret: Secret,
        *,
        oauth: bool,
        is_default: bool = False,
        scopes: tuple[str, ...] = (),
        subscription_type: str = "",
        note: str = "",
        expires_at: float | None = None,
    ) -> CredentialRow:
        """Store a credential in place of the one by its name, all of it; gives what may be shown."""
        now = self._now()
        row = CredentialRow(
            tenant,
            name,
            OAUTH if oauth else API_KEY,
            secret.seal(self._vault, tenant),
            is_default,
            scopes,
            subscription_type,
            note,
            now,
            now,
            expires_at,
            uuid.uuid4().hex,
        )
        row = await self._store.put(row)
        self._forget(tenant, name)
        return row

    async def page(self, tenant: str, after: str, limit: int) -> list[CredentialRow]:
        """At most `limit` of a tenant's whose names come after one, in order."""
        return await self._store.page(tenant, after, limit)

    async def remove(self, tenant: str, name: str) -> None:
        """Forget one. Raises CREDENTIAL_NOT_FOUND."""
        await self._store.remove(tenant, name)
        self._forget(tenant, name)

    async def find(self, tenant: str, name: str) -> Stored | None:
        """A credential as it is stored. Raises CREDENTIAL_REJECTED where it cannot be opened."""
        kept = self._kept.get((tenant, name))
        if kept is not None and self._clock() < kept.until:
            return kept.stored
        generation = self._generation
        try:
            row = await self._store.find(tenant, name)
        except WarmlineError:
            # A turn that runs is not to fail of that.
            now = self._clock()
            if kept is None or now - kept.read_at > _OUTAGE:
                raise
            self._kept[tenant, name] = kept._replace(until=now + _TTL)
            return kept.stored
        stored = None if row is None else opened(row, self._vault)
        if generation == self._generation:
            self._keep((tenant, name), stored)
        return stored

    async def current(self, tenant: str, name: str) -> Stored | None:
        """What a request goes out with at this moment; None where the tenant has no default.

        Raises CREDENTIAL_NOT_FOUND, and CREDENTIAL_REJECTED where it has expired and cannot be renewed.
        """
        stored = await self._waited_for(tenant, name)
        if stored is None and name:
            raise credential_not_found(name)
        if stored is None or not self._is_due(stored):
            return stored
        try:
            return await self._renewed(stored)
        except WarmlineError as error:
            if error.reason is Reason.CREDENTIAL_NOT_FOUND or self._left(stored) <= 0:
                raise
            return stored  # It is still good, and the next request tries again.

    async def _waited_for(self, tenant: str, name: str) -> Stored | None:
        """As `find`; of a store that is down a running turn waits to hear."""
        until = self._clock() + self._patience
        while True:
            try:
                return await self.find(tenant, name)
            except WarmlineError as error:
                if error.reason is not Reason.STORAGE_UNAVAILABLE or self._clock() >= until:
                    raise
            await asyncio.sleep(_AGAIN)

    async def another(self, refused: Stored) -> Stored | None:
        """What to try in place of one that the provider has refused; None where there is nothing.

        Raises CREDENTIAL_REJECTED where it cannot be renewed, CREDENTIAL_NOT_FOUND where it was removed.
        """
        row = await self._store.find(refused.row.tenant, refused.row.name)
        if row is None:
            raise credential_not_found(refused.row.name)
        newest = opened(row, self._vault)
        if row.revision != refused.row.revision:
            self._forget(row.tenant, row.name)
            return newest
        is_new = row.refreshed_at is not None and self._now() - row.refreshed_at < _NEW
        if is_new or not self._refresher.can(newest):
            return None
        return await self._renewed(newest)

    async def _renewed(self, stored: Stored) -> Stored:
        try:
            return await self._refresher.renew(stored)
        finally:
            self._forget(stored.row.tenant, stored.row.name)

    def _is_due(self, stored: Stored) -> bool:
        left, row = self._left(stored), stored.row
        if left <= 0 or row.expires_at is None:
            return left <= 0
        life = row.expires_at - row.updated_at
        return left <= min(_MARGIN, life / 4) and self._refresher.can(stored)

    def _left(self, stored: Stored) -> float:
        """Seconds until it expires."""
        expires_at = stored.row.expires_at
        return float("inf") if expires_at is None else expires_at - self._now()

    def _keep(self, key: _Key, stored: Stored | None) -> None:
        now = self._clock()
        self._kept[key] = _Kept(stored, now + _TTL, now)
        self._kept.move_to_end(key)
        if len(self._kept) > _KEPT:
            self._kept.popitem(last=False)

    def _forget(self, tenant: str, name: str) -> None:
        """It has changed, and so may the tenant's default have: what is on its way is not kept either."""
        self._generation += 1
        for each in (name, ""):
            self._kept.pop((tenant, each), None)
