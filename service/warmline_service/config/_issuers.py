"""Settings of those who issue tokens."""

from __future__ import annotations

import ipaddress
from typing import Annotated, Literal, Self
from urllib.parse import urlsplit

from pydantic import Field, StringConstraints, model_validator

from warmline_service.config._base import Section

_Url = Annotated[str, StringConstraints(pattern=r"^https?://[^\s?#]{1,500}$")]
_Claim = Annotated[str, StringConstraints(pattern=r"^[!-~]{1,200}$")]
# Symmetric ones are not among them: whoever can verify could sign.
_Algorithm = Literal[
    "RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA"
]


class IssuerSettings(Section):
    """An issuer of tokens (OpenID Connect) that is trusted to say who calls."""

    issuer: _Url = Field(description="Its name, as in the tokens' `iss`; by https.")
    audience: Annotated[str, StringConstraints(min_length=1, max_length=500)] = Field(
        description="What the tokens' `aud` has to have: the name of this service there."
    )
    jwks_url: _Url | None = Field(
        None, description="Where its keys are. Default: as its discovery document says."
    )
    tenant_claim: _Claim = Field("tenant", description="The claim that names the tenant.")
    scopes: frozenset[Literal["chat", "read", "admin"]] = Field(
        frozenset({"chat", "read"}),
        description="What its tokens allow; with `scope_claim` the most that they may.",
    )
    scope_claim: Literal[""] | _Claim = Field(
        "",
        description="The claim that lists scopes, as text or as a list. Default: all of `scopes`.",
    )
    algorithms: frozenset[_Algorithm] = Field(
        frozenset({"RS256", "ES256"}), description="How tokens may be signed."
    )
    clock_skew: float = Field(
        30.0, ge=0, le=300, description="Seconds that its clock and ours may differ."
    )

    @model_validator(mode="after")
    def _https(self) -> Self:
        for name, url in (("issuer", self.issuer), ("jwks_url", self.jwks_url)):
            if url is not None and not is_trusted_url(url):
                raise ValueError(f"{name}: must be https, or on this machine")
        return self


def is_trusted_url(url: str) -> bool:
    """Whether what is had from a URL is the host's: by https, or from this machine."""
    parts = urlsplit(url)
    if parts.scheme == "https":
        return bool(parts.hostname)
    try:
        local = (
            parts.hostname == "localhost" or ipaddress.ip_address(parts.hostname or "").is_loopback
        )
    except ValueError:
        local = False
    return parts.scheme == "http" and local
