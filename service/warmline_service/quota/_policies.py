"""Which policy holds for a tenant."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Protocol

from warmline_service.config import TenantPolicy, TenantSettings


class Policies(Protocol):
    """Where the tenants' policies come from; a database can stand behind it."""

    async def of(self, tenant: str) -> TenantPolicy:
        """What holds for a tenant, with defaults filled in."""
        ...


class SettingsPolicies:
    """The policies of the settings file."""

    def __init__(self, default: TenantPolicy, tenants: Iterable[TenantSettings]) -> None:
        self._default = default
        self._own = {tenant.id: tenant.policy.over(default) for tenant in tenants}

    async def of(self, tenant: str) -> TenantPolicy:
        """What holds for a tenant; the default for one that is not in the file."""
        return self._own.get(tenant, self._default)
