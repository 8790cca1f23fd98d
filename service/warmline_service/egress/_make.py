"""The provider that the settings name."""

from __future__ import annotations

from collections.abc import Mapping

from warmline_service.config import ProviderSettings
from warmline_service.credentials import Wallet
from warmline_service.egress._anthropic import AnthropicProvider
from warmline_service.egress._credential import operator_credential
from warmline_service.egress._provider import Provider
from warmline_service.egress.loopback import LoopbackModel


def make_provider(
    settings: ProviderSettings, environ: Mapping[str, str], wallet: Wallet | None = None
) -> Provider:
    """Make it; `environ` is where ANTHROPIC_API_KEY is looked up. Blocks while it reads a key file.

    `wallet` has what is stored for tenants.

    Raises OSError and ValueError as `operator_credential` does.
    """
    if settings.kind == "loopback":
        return LoopbackModel()
    return AnthropicProvider(settings, operator_credential(settings, environ), wallet)
