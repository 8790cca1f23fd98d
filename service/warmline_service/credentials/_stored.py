"""One stored credential, opened, and how it is sealed."""

from __future__ import annotations

from dataclasses import dataclass, field

from warmline_service.errors import Reason, WarmlineError
from warmline_service.store import CredentialRow
from warmline_service.vault import SealBroken, Vault

API_KEY = "api_key"
OAUTH = "oauth"
# Why one could not be renewed.
REFUSED = "refused"
UNAVAILABLE = "unavailable"
_WHY = {
    REFUSED: "the authorization server takes its refresh token no more",
    UNAVAILABLE: "the authorization server could not be asked",
}


@dataclass(frozen=True)
class Secret:
    """What is secret of a credential: an API key, or an access token and maybe what renews it."""

    value: str = field(repr=False)
    refresh_token: str = field(default="", repr=False)

    def seal(self, vault: Vault, tenant: str) -> str:
        """As it is stored."""
        values = {"secret": self.value, "refresh_token": self.refresh_token}
        return vault.seal(tenant, {name: value for name, value in values.items() if value})


@dataclass(frozen=True)
class Stored:
    """A credential as it is stored, with its secret."""

    row: CredentialRow
    secret: Secret

    @property
    def oauth(self) -> bool:
        """Whether it is a token that bears, and no API key."""
        return self.row.kind == OAUTH


def opened(row: CredentialRow, vault: Vault) -> Stored:
    """Raises CREDENTIAL_REJECTED where it was sealed with another key."""
    try:
        values = vault.unseal(row.tenant, row.sealed)
    except SealBroken as error:
        raise rejected(row.name, "was stored with another key") from error
    return Stored(row, Secret(values["secret"], values.get("refresh_token", "")))


def rejected(name: str, why: str, retry_after: float | None = None) -> WarmlineError:
    """CREDENTIAL_REJECTED for a stored credential, and what to do."""
    text = f"The stored credential {name} {why}: have the operator store it again (SetCredential)."
    return WarmlineError(
        Reason.CREDENTIAL_REJECTED,
        text,
        metadata={"credential": name},
        retry_after=retry_after,
    )


def nothing_to_pay_with() -> WarmlineError:
    """CREDENTIAL_REJECTED where the tenant has no default, and the operator no credential of his own."""
    text = (
        "There is no credential to pay with: give one by `config.credential`, or have the operator store "
        "one for the tenant (SetCredential)."
    )
    return WarmlineError(Reason.CREDENTIAL_REJECTED, text)


def not_renewed(row: CredentialRow, failure: str, retry_after: float | None) -> WarmlineError:
    """CREDENTIAL_REJECTED for one that could not be renewed."""
    why = f"could not be renewed, because {_WHY[failure]}"
    return rejected(row.name, why, retry_after if failure == UNAVAILABLE else None)
