"""What a session is set up with and nobody is shown."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Self

from warmline_service.vault import Vault


@dataclass(frozen=True)
class Secrets:
    """Named values that nobody is shown: as they were given, and from the store on sealed."""

    names: tuple[str, ...] = ()
    given: Mapping[str, str] | None = field(default=None, repr=False)
    sealed: str = field(default="", repr=False)

    def seal(self, vault: Vault, tenant: str) -> Self:
        """The same without what was given."""
        if not self.given:
            return replace(self, given=None)
        return replace(self, given=None, sealed=vault.seal(tenant, self.given))

    def values(self, vault: Vault, tenant: str) -> Mapping[str, str]:
        """What was given; raises SealBroken."""
        if self.given is not None:
            return self.given
        return vault.unseal(tenant, self.sealed) if self.sealed else {}


@dataclass(frozen=True)
class PayingCredential(Secrets):
    """What a session pays with: its own `api_key` or `oauth_token`, or by its name one stored for the tenant.

    Empty: the tenant's default, or else the operator's.
    """

    name: str = ""
