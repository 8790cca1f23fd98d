"""Which policy holds for a tenant, as this package asks for it."""

from __future__ import annotations

from typing import Protocol

from warmline_service.config import TenantPolicy


class Policies(Protocol):
    """Where the tenants' policies come from."""

    async def of(self, tenant: str) -> TenantPolicy:
        """What holds for a tenant, with what holds for all filled in. May raise STORAGE_UNAVAILABLE."""
        ...
