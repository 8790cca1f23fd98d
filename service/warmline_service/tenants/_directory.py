"""All tenants and their keys: those of the settings file, which win, and those of the store."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

from warmline_service.config import TenantPolicy, TenantSettings
from warmline_service.store import TenantStore
from warmline_service.tenants._cache import TtlCache
from warmline_service.tenants._keys import KeyRecord

# What another service on the same database has changed holds here after so many seconds.
TTL = 3.0
_KEPT = 10_000


@dataclass(frozen=True)
class Standing:
    """A tenant that there is."""

    id: str
    disabled: bool = False
    policy: TenantPolicy = field(default_factory=TenantPolicy)


class Directory:
    """Looks tenants and keys up, in the store at most once in `TTL` seconds for each.

    `changed` is set when something has changed in it here. Everything raises STORAGE_UNAVAILABLE where it
    has to ask the store and cannot.
    """

    def __init__(
        self,
        tenants: Iterable[TenantSettings],
        store: TenantStore,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.fixed: Mapping[str, TenantSettings] = {tenant.id: tenant for tenant in tenants}
        self.fixed_keys: Mapping[str, KeyRecord] = _keys_of(self.fixed.values())
        self._fixed_identities = {
            name: Standing(tenant.id)
            for tenant in self.fixed.values()
            for name in tenant.identities
        }
        self.changed = asyncio.Event()
        self._store = store
        self._keys = TtlCache(self._load_key, ttl=TTL, size=_KEPT, clock=clock)
        self._tenants = TtlCache(self._load_tenant, ttl=TTL, size=_KEPT, clock=clock)
        self._identities = TtlCache(self._load_identity, ttl=TTL, size=_KEPT, clock=clock)

    async def key(self, key_id: str) -> KeyRecord | None:
        """The record of a key id, or None."""
        return self.fixed_keys.get(key_id) or await self._keys.get(key_id)

    async def tenant(self, tenant: str) -> Standing | None:
        """A tenant, if there is one by this id."""
        fixed = self.fixed.get(tenant)
        if fixed is not None:
            return Standing(tenant, policy=fixed.policy)
        return await self._tenants.get(tenant)

    async def identified_by(self, identity: str) -> Standing | None:
        """The tenant that a certificate's identity stands for."""
        return self._fixed_identities.get(identity) or await self._identities.get(identity)

    def fixed_identity(self, identity: str) -> str | None:
        """The tenant of the settings file that an identity stands for."""
        standing = self._fixed_identities.get(identity)
        return standing.id if standing is not None else None

    def forget(self) -> None:
        """Something has changed in the store."""
        for cache in (self._keys, self._tenants, self._identities):
            cache.forget()
        self.changed.set()

    async def _load_key(self, key_id: str) -> KeyRecord | None:
        found = await self._store.key(key_id)
        if found is None:
            return None
        row, disabled = found
        revoked = row.revoked_at is not None
        return KeyRecord(
            row.id, row.tenant, row.sha256, row.scopes, row.expires_at, revoked, disabled
        )

    async def _load_tenant(self, tenant: str) -> Standing | None:
        row = await self._store.tenant(tenant)
        if row is None:
            return None
        return Standing(row.id, row.disabled, TenantPolicy.model_validate_json(row.policy))

    async def _load_identity(self, identity: str) -> Standing | None:
        row = await self._store.identified_by(identity)
        return Standing(row.id, row.disabled) if row is not None else None


def _keys_of(tenants: Iterable[TenantSettings]) -> dict[str, KeyRecord]:
    return {
        key.id: KeyRecord(
            key.id,
            tenant.id,
            key.sha256,
            frozenset(key.scopes),
            key.expires_at.timestamp() if key.expires_at else None,
        )
        for tenant in tenants
        for key in tenant.keys
    }
