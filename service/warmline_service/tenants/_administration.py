"""What operators do with tenants and keys; those of the settings file are shown and not changed."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass

from warmline_service.config import TenantPolicy
from warmline_service.errors import Reason, WarmlineError, field_invalid
from warmline_service.store import (
    KeyRow,
    TenantRow,
    TenantStore,
    key_not_found,
    tenant_exists,
    tenant_not_found,
)
from warmline_service.tenants._directory import Directory
from warmline_service.tenants._keys import KeyRecord, hash_key, new_key

DEFAULT_SCOPES = frozenset({"chat", "read"})
_FIRST = "admin"


@dataclass(frozen=True)
class TenantView:
    """A tenant; `fixed` is one of the settings file."""

    row: TenantRow
    fixed: bool = False

    @property
    def policy(self) -> TenantPolicy:
        """What it may have, where that is not as for all."""
        return TenantPolicy.model_validate_json(self.row.policy)


@dataclass(frozen=True)
class KeyView:
    """A key; `fixed` is one of the settings file."""

    row: KeyRow
    fixed: bool = False


class Administration:
    """Changes tenants and keys; what it has changed holds here at once, elsewhere within `TTL` seconds.

    Everything raises STORAGE_UNAVAILABLE while the store cannot be used.
    """

    def __init__(
        self, directory: Directory, store: TenantStore, now: Callable[[], float] = time.time
    ) -> None:
        self._directory = directory
        self._store = store
        self._now = now

    async def create_tenant(
        self,
        tenant: str,
        display_name: str,
        identities: Collection[str],
        policy: TenantPolicy,
        *,
        disabled: bool,
    ) -> TenantView:
        """Make a tenant. Raises TENANT_EXISTS, IDENTITY_TAKEN."""
        if tenant in self._directory.fixed:
            raise tenant_exists(tenant)
        self._check_identities(identities)
        names = tuple(sorted(identities))
        row = TenantRow(tenant, display_name, disabled, self._now(), names, stored(policy))
        await self._store.create(row)
        self._directory.forget()
        return TenantView(row)

    async def tenant(self, tenant: str) -> TenantView:
        """One tenant. Raises TENANT_NOT_FOUND."""
        if tenant in self._directory.fixed:
            return self._fixed(tenant)
        row = await self._store.tenant(tenant)
        if row is None:
            raise tenant_not_found(tenant)
        return TenantView(row)

    async def tenants(self, after: str, limit: int) -> list[TenantView]:
        """At most `limit` tenants whose ids come after one, in order."""
        fixed = self._directory.fixed
        rows = await self._store.tenants(after, limit)
        found = {row.id: TenantView(row) for row in rows}
        found |= {tenant: self._fixed(tenant) for tenant in fixed if tenant > after}
        return [found[tenant] for tenant in sorted(found)][:limit]

    async def update_tenant(
        self,
        tenant: str,
        values: Mapping[str, object],
        identities: Collection[str] | None,
        own: str,
    ) -> TenantView:
        """Change columns of a tenant, and its identities unless they are None.

        Raises TENANT_NOT_FOUND, IDENTITY_TAKEN, FIXED_BY_SETTINGS, FIELD_INVALID where `own`, the caller's,
        is to be disabled.
        """
        self._check_free(tenant)
        if tenant == own and values.get("disabled"):
            raise field_invalid("tenant.disabled", "is about your own: you would shut yourself out")
        self._check_identities(identities or ())
        row = await self._store.update(tenant, values, identities)
        self._directory.forget()
        return TenantView(row)

    async def remove_tenant(self, tenant: str, own: str) -> None:
        """Shut a tenant out for good, unless it is `own`, the caller's.

        Raises TENANT_NOT_FOUND, FIXED_BY_SETTINGS, FIELD_INVALID.
        """
        self._check_free(tenant)
        if tenant == own:
            raise field_invalid("tenant_id", "is your own: you would shut yourself out")
        await self._store.shut_out(tenant, self._now())
        self._directory.forget()

    async def create_key(
        self, tenant: str, scopes: Collection[str], note: str, expires_at: float | None
    ) -> tuple[KeyView, str]:
        """Make a key; gives what is kept of it, and the key. Raises TENANT_NOT_FOUND, FIXED_BY_SETTINGS."""
        self._check_free(tenant)
        identifier, secret = self._new_key()
        row = KeyRow(
            identifier,
            tenant,
            hash_key(secret),
            frozenset(scopes) or DEFAULT_SCOPES,
            note,
            self._now(),
            expires_at,
        )
        await self._store.create_key(row)
        self._directory.forget()
        return KeyView(row), secret

    async def keys(self, tenant: str, after: str, limit: int) -> list[KeyView]:
        """At most `limit` of a tenant's keys whose ids come after one. Raises TENANT_NOT_FOUND."""
        if tenant not in self._directory.fixed and await self._store.tenant(tenant) is None:
            raise tenant_not_found(tenant)
        found = {row.id: KeyView(row) for row in await self._store.keys(tenant, after, limit)}
        fixed = self._directory.fixed_keys.values()
        found |= {
            record.id: _view_of(record)
            for record in fixed
            if record.tenant == tenant and record.id > after
        }
        return [found[key_id] for key_id in sorted(found)][:limit]

    async def rotate_key(
        self, key_id: str, overlap: float, expires_at: float | None
    ) -> tuple[KeyView, str, KeyView]:
        """Make a key in place of another, which ends in `overlap` seconds; gives both, and the new key.

        Without `expires_at` it lives as long as the old one was to. Raises KEY_NOT_FOUND where that has
        ended, FIXED_BY_SETTINGS.
        """
        self._check_free_key(key_id)
        found = await self._store.key(key_id)
        if found is None:
            raise key_not_found(key_id)
        old, now = found[0], self._now()
        identifier, secret = self._new_key()
        if expires_at is None and old.expires_at is not None:
            expires_at = now + old.expires_at - old.created_at
        new = KeyRow(
            identifier, old.tenant, hash_key(secret), old.scopes, old.note, now, expires_at
        )
        ends_at = min(now + overlap, old.expires_at or now + overlap)
        replaced = await self._store.replace_key(key_id, ends_at, new)
        self._directory.forget()
        return KeyView(new), secret, KeyView(replaced)

    async def revoke_key(self, key_id: str) -> KeyView:
        """End a key. Raises KEY_NOT_FOUND, FIXED_BY_SETTINGS."""
        self._check_free_key(key_id)
        row = await self._store.revoke_key(key_id, self._now())
        self._directory.forget()
        return KeyView(row)

    def _new_key(self) -> tuple[str, str]:
        while True:
            identifier, secret = new_key()
            if identifier not in self._directory.fixed_keys:
                return identifier, secret

    def _fixed(self, tenant: str) -> TenantView:
        known = self._directory.fixed[tenant]
        names, policy = tuple(sorted(known.identities)), stored(known.policy)
        row = TenantRow(tenant, "", False, 0.0, names, policy)  # not disabled
        return TenantView(row, fixed=True)

    def _check_free(self, tenant: str) -> None:
        if tenant in self._directory.fixed:
            raise _fixed_by_settings("tenantId", tenant)

    def _check_free_key(self, key_id: str) -> None:
        if key_id in self._directory.fixed_keys:
            raise _fixed_by_settings("keyId", key_id)

    def _check_identities(self, names: Iterable[str]) -> None:
        for name in names:
            if (owner := self._directory.fixed_identity(name)) is not None:
                raise WarmlineError(
                    Reason.IDENTITY_TAKEN,
                    "A tenant of the settings file has this identity.",
                    metadata={"identity": name, "tenantId": owner},
                )


def stored(policy: TenantPolicy) -> str:
    """A policy as it is stored: what it sets, and nothing else."""
    return policy.model_dump_json(exclude_unset=True)


async def make_first_key(store: TenantStore, now: float) -> str | None:
    """A key with every scope for the tenant `admin`, if there is no key at all; None where there is one."""
    identifier, secret = new_key()
    note = "made at the first start"
    scopes = DEFAULT_SCOPES | {"admin"}
    row = KeyRow(identifier, _FIRST, hash_key(secret), scopes, note, now)
    made = await store.create_first_key(TenantRow(_FIRST, "", disabled=False, created_at=now), row)
    return secret if made else None


def _view_of(record: KeyRecord) -> KeyView:
    row = KeyRow(record.id, record.tenant, record.sha256, record.scopes, "", 0.0, record.expires_at)
    return KeyView(row, fixed=True)


def _fixed_by_settings(name: str, value: str) -> WarmlineError:
    text = "It comes from the settings file, and is changed there."
    return WarmlineError(Reason.FIXED_BY_SETTINGS, text, metadata={name: value})
