"""Which policy holds for a tenant."""

from __future__ import annotations

from warmline_service.config import TenantPolicy
from warmline_service.tenants._directory import Directory


class TenantPolicies:
    """The tenants' own policies over the one for all; a change in the store holds within `TTL` seconds."""

    def __init__(self, default: TenantPolicy, directory: Directory) -> None:
        self._default = default
        self._directory = directory

    async def of(self, tenant: str) -> TenantPolicy:
        """What holds for a tenant; the one for all where nobody knows it. Raises STORAGE_UNAVAILABLE."""
        standing = await self._directory.tenant(tenant)
        return self._default if standing is None else standing.policy.over(self._default)
