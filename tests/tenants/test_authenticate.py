"""API keys, and what a caller shows."""

from datetime import UTC, datetime

import pytest
from kept import secret_of
from warmline_service.errors import Reason, WarmlineError
from warmline_service.tenants import (
    Authenticator,
    KeyCheck,
    KeyRecord,
    Principal,
    Shown,
    hash_key,
    new_key,
)

NOW = datetime(2026, 1, 1, tzinfo=UTC).timestamp()


class Keys:
    """One key."""

    def __init__(self, record: KeyRecord) -> None:
        self._record = record

    async def key(self, key_id: str) -> KeyRecord | None:
        """The key, if it is this one."""
        return self._record if key_id == self._record.id else None


class Door:
    """Somebody who has a key, and the service that he shows it to."""

    def __init__(self, **record: object) -> None:
        self.key_id, self.key = new_key()
        fields = {"scopes": frozenset({"chat", "read"})} | record
        known = KeyRecord(self.key_id, "acme", hash_key(self.key), **fields)  # type: ignore[arg-type]
        self.used: list[str] = []
        self.authenticator = Authenticator([KeyCheck(Keys(known), self.used.append, lambda: NOW)])

    async def opens(self, authorization: str | None = None, api_key: str = "") -> Principal:
        """Who comes in; by default with the key."""
        header = f"Bearer {self.key}" if authorization is None else authorization
        return await self.authenticator.authenticate(Shown(header, api_key))

    async def refuses(self, authorization: str | None = None, api_key: str = "") -> WarmlineError:
        """Why nobody comes in; the key is not in what is said."""
        with pytest.raises(WarmlineError) as caught:
            await self.opens(authorization, api_key)
        assert self.key not in str(caught.value)
        assert self.used == []
        return caught.value


async def test_a_good_key_names_its_tenant() -> None:
    """The caller gets the key's tenant and scopes, and the use is noted."""
    door = Door()
    caller = await door.opens()
    assert (caller.tenant, caller.by) == ("acme", f"key {door.key_id}")
    assert door.used == [door.key_id]
    caller.require("chat")


async def test_it_may_come_as_a_header_of_its_own() -> None:
    """`x-api-key` as well; where both are there, `authorization` counts."""
    door = Door()
    assert (await door.opens("", api_key=door.key)).tenant == "acme"
    assert (await door.opens(f"bearer  {door.key} ")).tenant == "acme"
    door.used.clear()
    assert (await door.refuses("Bearer x", api_key=door.key)).reason is Reason.KEY_INVALID
    assert (await door.refuses("Basic x", api_key=door.key)).reason is Reason.KEY_INVALID


@pytest.mark.parametrize(
    "form", ["", "{key}", "Basic {key}", "Bearer {key}x", "Bearer", "Bearer wl_aaaa_" + "0" * 43]
)
async def test_anything_else_is_refused(form: str) -> None:
    """No key, a wrong one, another scheme: KEY_INVALID."""
    door = Door()
    assert (await door.refuses(form.format(key=door.key))).reason is Reason.KEY_INVALID


async def test_a_key_with_anothers_secret_is_refused() -> None:
    """The id alone opens nothing."""
    door, other = Door(), Door()
    secret = secret_of(other.key)
    error = await door.refuses(f"Bearer wl_{door.key_id}_{secret}")
    assert error.reason is Reason.KEY_INVALID


async def test_an_expired_key_says_so() -> None:
    """A key is refused from the moment of its expiry on."""
    assert (await Door(expires_at=NOW).refuses()).reason is Reason.KEY_EXPIRED
    assert (await Door(expires_at=NOW + 1).opens()).tenant == "acme"


@pytest.mark.parametrize(
    ("field", "reason"),
    [("revoked", Reason.KEY_INVALID), ("disabled", Reason.TENANT_DISABLED)],
)
async def test_what_was_taken_back_is_told_to_its_owner_alone(field: str, reason: Reason) -> None:
    """Who has only the id learns nothing of the key."""
    door = Door(**{field: True})
    told = await door.refuses()
    assert told.reason is reason
    guessed = await door.refuses(f"Bearer wl_{door.key_id}_{'0' * 43}")
    assert guessed.reason is Reason.KEY_INVALID
    assert guessed.message != told.message


async def test_a_missing_scope_is_policy() -> None:
    """A key may do what its scopes say and no more."""
    caller = await Door().opens()
    with pytest.raises(WarmlineError) as caught:
        caller.require("admin")
    assert caught.value.reason is Reason.POLICY_DENIED


async def test_without_a_check_everybody_is_dev() -> None:
    """A service that asks nobody serves this machine's developer."""
    assert (await Authenticator(()).authenticate(Shown())).tenant == "dev"


def test_a_secret_is_in_no_repr() -> None:
    """What is shown may end up in a log, and says nothing there."""
    assert "s3cret" not in repr(Shown("Bearer s3cret", "s3cret"))
