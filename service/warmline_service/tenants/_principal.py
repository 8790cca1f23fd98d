"""What a caller shows, and who he is."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

from warmline_service.errors import Reason, WarmlineError

SCOPES = ("chat", "read", "admin")


@dataclass(frozen=True)
class Shown:
    """What came with a call: its headers, and the names in the certificate of a verified client."""

    authorization: str = field(default="", repr=False)
    api_key: str = field(default="", repr=False)
    identities: tuple[str, ...] = ()

    @property
    def secret(self) -> str:
        """The one secret that he shows; empty where there is none, or it is of another scheme."""
        scheme, _, secret = self.authorization.partition(" ")
        if self.authorization:
            return secret.strip() if scheme.lower() == "bearer" else ""
        return self.api_key.strip()

    @property
    def anything(self) -> bool:
        """Whether he shows any secret, a wrong one included."""
        return bool(self.authorization or self.api_key)


@dataclass(frozen=True)
class OwnCredential:
    """A model credential that is its caller's identity as well; `oauth`: one that bears, no API key."""

    secret: str = field(repr=False)
    oauth: bool = False


@dataclass(frozen=True)
class Principal:
    """An authenticated caller. `by` says what made him known, for logs; it holds no secret.

    `still` raises what he would be refused with now; None where that cannot change.
    """

    tenant: str
    by: str
    scopes: frozenset[str]
    credential: OwnCredential | None = None
    still: Callable[[], Awaitable[object]] | None = field(default=None, repr=False, compare=False)

    def require(self, scope: str) -> None:
        """Raise POLICY_DENIED without this scope."""
        if scope not in self.scopes:
            raise WarmlineError(
                Reason.POLICY_DENIED,
                f"The caller does not have the scope `{scope}`.",
                metadata={"scope": scope},
            )


DEVELOPER = Principal("dev", "nobody", frozenset(SCOPES))


def unknown_caller(text: str = "") -> WarmlineError:
    """Nobody is known by what was shown."""
    return WarmlineError(
        Reason.KEY_INVALID, text or "Send a valid API key as `authorization: Bearer wl_...`."
    )


def tenant_disabled() -> WarmlineError:
    """Somebody is known, and not let in."""
    return WarmlineError(Reason.TENANT_DISABLED, "The operator has disabled this tenant.")
