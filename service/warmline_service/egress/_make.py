"""The provider that the settings name."""

from __future__ import annotations

from collections.abc import Mapping

from warmline_service.config import ProviderSettings
from warmline_service.egress._anthropic import AnthropicProvider
from warmline_service.egress._credential import operator_credential
from warmline_service.egress._provider import Provider
from warmline_service.egress.loopback import LoopbackModel


def make_provider(settings: ProviderSettings, environ: Mapping[str, str]) -> Provider:
    """Make it; `environ` is where ANTHROPIC_API_KEY is looked up. Blocks while it reads a key file.

    Raises OSError and ValueError as `operator_credential` does.
    """
    if settings.kind == "loopback":
        return LoopbackModel()
    return AnthropicProvider(settings, operator_credential(settings, environ))
