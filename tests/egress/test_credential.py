"""Where the operator's credential comes from, and how one is sent."""

from pathlib import Path

import pytest
from pydantic import SecretStr
from warmline_service.config import ProviderSettings
from warmline_service.egress import AnthropicProvider, Credential, LoopbackModel, make_provider
from warmline_service.egress import operator_credential as find
from warmline_service.egress._credential import authorize

ENV = {"ANTHROPIC_API_KEY": "from-env"}


def test_the_first_source_that_is_set_wins(tmp_path: Path) -> None:
    """The setting, then the file, then the environment, then none."""
    file = tmp_path / "key"
    file.write_text("from-file\n")
    both = ProviderSettings(api_key=SecretStr("from-setting"), api_key_file=file)
    assert find(both, ENV) == Credential(SecretStr("from-setting"))
    assert find(ProviderSettings(api_key_file=file), ENV) == Credential(SecretStr("from-file"))
    assert find(ProviderSettings(), ENV) == Credential(SecretStr("from-env"))
    assert find(ProviderSettings(), {}) is None
    token = SecretStr("sk-ant-oat01-x")
    assert find(ProviderSettings(api_key=token), {}) == Credential(token, oauth=True)


@pytest.mark.parametrize("value", ["a\nb", "a b", "schl\u00fcssel", " ", "a\0"])
def test_what_cannot_be_a_header_is_refused_unsaid(value: str) -> None:
    """The error names the source and not the value."""
    with pytest.raises(ValueError, match=r"provider\.api_key: not a credential") as caught:
        find(ProviderSettings(api_key=SecretStr(value)), {})
    assert not value.strip() or value not in str(caught.value)


def test_the_oauth_beta_is_asked_for_once() -> None:
    """The CLI may have asked itself."""
    headers = {"anthropic-beta": "oauth-2025-04-20"}
    authorize(headers, Credential(SecretStr("sk-ant-oat01-x"), oauth=True))
    assert headers == {
        "anthropic-beta": "oauth-2025-04-20",
        "authorization": "Bearer sk-ant-oat01-x",
    }


def test_without_a_credential_none_is_sent() -> None:
    """Some endpoints need none."""
    headers: dict[str, str] = {}
    authorize(headers, None)
    assert headers == {}


def test_the_settings_name_the_provider() -> None:
    """Both kinds can be made; neither connects anywhere yet."""
    assert isinstance(make_provider(ProviderSettings(kind="loopback"), {}), LoopbackModel)
    assert isinstance(make_provider(ProviderSettings(kind="anthropic"), ENV), AnthropicProvider)
