"""API keys."""

from datetime import UTC, datetime, timedelta

import pytest
from warmline_service.config import ApiKeySettings, TenantSettings
from warmline_service.errors import Reason, WarmlineError
from warmline_service.tenants import Authenticator, SettingsKeys, hash_key, new_key

NOW = datetime(2026, 1, 1, tzinfo=UTC)


def authenticator(key: str, identifier: str, expires: datetime | None = None) -> Authenticator:
    entry = ApiKeySettings(id=identifier, sha256=hash_key(key), expires_at=expires)
    return Authenticator(SettingsKeys([TenantSettings(id="acme", keys=(entry,))]), lambda: NOW)


async def test_a_good_key_names_its_tenant() -> None:
    """The caller gets the key's tenant and scopes."""
    identifier, key = new_key()
    caller = await authenticator(key, identifier).authenticate(f"Bearer {key}")
    assert (caller.tenant, caller.key_id) == ("acme", identifier)
    caller.require("chat")


@pytest.mark.parametrize(
    "form", ["", "{key}", "Basic {key}", "Bearer {key}x", "Bearer", "Bearer wl_aaaa_" + "0" * 43]
)
async def test_anything_else_is_refused(form: str) -> None:
    """No key, a wrong one, another scheme: KEY_INVALID, and the key is not in the error."""
    identifier, key = new_key()
    with pytest.raises(WarmlineError) as caught:
        await authenticator(key, identifier).authenticate(form.format(key=key))
    assert caught.value.reason is Reason.KEY_INVALID
    assert key not in str(caught.value)


async def test_an_expired_key_says_so() -> None:
    """A key is refused from the moment of its expiry on."""
    identifier, key = new_key()
    with pytest.raises(WarmlineError) as caught:
        await authenticator(key, identifier, NOW).authenticate(f"Bearer {key}")
    assert caught.value.reason is Reason.KEY_EXPIRED
    later = authenticator(key, identifier, NOW + timedelta(seconds=1))
    assert (await later.authenticate(f"bearer {key}")).tenant == "acme"


async def test_a_missing_scope_is_policy() -> None:
    """A key may do what its scopes say and no more."""
    identifier, key = new_key()
    caller = await authenticator(key, identifier).authenticate(f"Bearer {key}")
    with pytest.raises(WarmlineError) as caught:
        caller.require("admin")
    assert caught.value.reason is Reason.POLICY_DENIED


async def test_without_keys_everybody_is_dev() -> None:
    """A service without keys serves this machine's developer."""
    assert (await Authenticator(None).authenticate(None)).tenant == "dev"
