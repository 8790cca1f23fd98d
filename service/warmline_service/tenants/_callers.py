"""Who may call, all of it: started with the service, and stopped with it."""

from __future__ import annotations

import ipaddress
import time
from collections.abc import Callable

from warmline_service.config import Settings
from warmline_service.store import TenantStore
from warmline_service.tenants._administration import Administration, make_first_key
from warmline_service.tenants._authenticate import Authenticator, Check, KeyCheck
from warmline_service.tenants._certificates import CertificateCheck
from warmline_service.tenants._directory import Directory
from warmline_service.tenants._last_use import LastUse
from warmline_service.tenants._own_credential import OwnCredentialCheck
from warmline_service.tenants._policies import TenantPolicies
from warmline_service.tenants._tokens import TokenCheck


class NoKey(Exception):  # noqa: N818  # named for what is the case
    """Callers have to show a key, there is none, and nobody to be shown a new one."""


class Callers:
    """The authenticator and the administration of a service. `start` first, `aclose` last.

    `keyed_hash` makes tenants of credentials that callers bring, in hex; its key is the service's own.
    """

    def __init__(
        self, settings: Settings, store: TenantStore, keyed_hash: Callable[[str], str]
    ) -> None:
        self._settings = settings
        self._store = store
        self._keyed_hash = keyed_hash
        self._directory = Directory(settings.tenants, store)
        self._last_use = LastUse(store)
        self._tokens = TokenCheck(settings.oidc, self._directory)
        self.administration = Administration(self._directory, store)
        self.policies = TenantPolicies(settings.policy, self._directory)
        self.authenticator = Authenticator(())

    async def start(self, show_key: Callable[[str], None] | None) -> None:
        """Begin to ask who calls, unless everybody may. The first key is made here, and given to `show_key`.

        Raises STORAGE_UNAVAILABLE, and NoKey where a key is to be made and there is no `show_key`.
        """
        if not (asks_callers(self._settings) or await self._store.any_access()):
            return
        await self._have_a_key(show_key)
        self.authenticator = Authenticator(self._checks(), self._directory.changed)
        self._last_use.start()

    async def aclose(self) -> None:
        """Write what is to be kept, and let go of what is connected."""
        await self._last_use.aclose()
        await self._tokens.aclose()

    async def _have_a_key(self, show_key: Callable[[str], None] | None) -> None:
        if self._directory.fixed_keys or await self._store.any_key():
            return
        if show_key is None:
            raise NoKey(
                "Callers have to show a key, and there is no API key: add one (`warmline new-key`)."
            )
        key = await make_first_key(self._store, time.time())
        if key is not None:
            show_key(key)

    def _checks(self) -> list[Check]:
        directory = self._directory

        def used(key_id: str) -> None:
            if key_id not in directory.fixed_keys:
                self._last_use.note(key_id)

        checks: list[Check] = [CertificateCheck(directory)]
        if self._settings.oidc:
            checks.append(self._tokens)
        if self._settings.provider.caller_tenants:
            checks.append(OwnCredentialCheck(self._keyed_hash))
        return [*checks, KeyCheck(directory, used)]


def asks_callers(settings: Settings) -> bool:
    """Whether the settings alone say that callers have to show who they are."""
    known = any(tenant.keys or tenant.identities for tenant in settings.tenants)
    known = known or bool(settings.oidc) or settings.provider.caller_tenants
    others = not (
        is_loopback(settings.listen) and is_loopback(settings.http_listen or "localhost:0")
    )
    return known or settings.auth == "required" or others


def is_loopback(listen: str) -> bool:
    """Whether only this machine reaches HOST:PORT."""
    host = listen.rpartition(":")[0].strip("[]")
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
