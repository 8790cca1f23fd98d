"""The operator's credential, and how a credential is sent."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from pydantic import SecretStr

from warmline_service.config import ProviderSettings

# The CLI has to have one before it sends anything; the egress takes it off each request.
PLACEHOLDER = "placeholder"
_OAUTH_PREFIX = "sk-ant-oat"
_OAUTH_BETA = "oauth-2025-04-20"


@dataclass(frozen=True)
class Credential:
    """What a request goes out with: an API key, or with `oauth` a token that bears."""

    secret: SecretStr
    oauth: bool = False


def operator_credential(
    settings: ProviderSettings, environ: Mapping[str, str]
) -> Credential | None:
    """The first of `api_key`, `api_key_file` and ANTHROPIC_API_KEY that is set.

    Blocks while it reads the file. Raises OSError where it cannot, and ValueError for a credential
    that does not fit into a header.
    """
    if settings.api_key is not None:
        return _checked(settings.api_key.get_secret_value(), "provider.api_key")
    if settings.api_key_file is not None:
        return _checked(settings.api_key_file.read_text("utf-8"), "provider.api_key_file")
    value = environ.get("ANTHROPIC_API_KEY", "")
    return _checked(value, "ANTHROPIC_API_KEY") if value else None


def _checked(value: str, source: str) -> Credential:
    value = value.strip()
    if not value or not value.isascii() or not value.isprintable() or " " in value:
        raise ValueError(f"{source}: not a credential: one line of printable ASCII is expected")
    return Credential(SecretStr(value), value.startswith(_OAUTH_PREFIX))


def authorize(headers: dict[str, str], credential: Credential | None) -> None:
    """Put a credential into the headers of a request; `headers` has lower-case names."""
    if credential is None:
        return
    value = credential.secret.get_secret_value()
    if not credential.oauth:
        headers["x-api-key"] = value
        return
    headers["authorization"] = f"Bearer {value}"
    # The CLI believes that it has an API key, so it does not ask for this itself.
    betas = [beta for beta in headers.get("anthropic-beta", "").split(",") if beta]
    if _OAUTH_BETA not in betas:
        headers["anthropic-beta"] = ",".join([*betas, _OAUTH_BETA])
