"""Tenants and keys, looked up and changed, over a real store."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncIterator, Awaitable
from pathlib import Path

import pytest
from stores import forbid_writing, opened
from warmline_service.config import ApiKeySettings, TenantPolicy, TenantSettings
from warmline_service.errors import Reason, WarmlineError
from warmline_service.store import Store
from warmline_service.tenants import (
    Administration,
    Authenticator,
    CertificateCheck,
    Directory,
    KeyCheck,
    LastUse,
    Principal,
    Shown,
    hash_key,
    make_first_key,
    new_key,
)

NOW = 1_800_000_000.0
OWN = "admin"


class House:
    """A store, a settings file with one tenant, and clocks that stand still."""

    def __init__(self, store: Store) -> None:
        self.whole = store
        self.store = store.tenants
        self.now, self.time = NOW, 0.0
        self.fixed_id, self.fixed_key = new_key()
        entry = ApiKeySettings(id=self.fixed_id, sha256=hash_key(self.fixed_key))
        fixed = TenantSettings(id="fixed", keys=(entry,), identities=("spiffe://x/fixed",))
        self.directory = Directory([fixed], self.store, lambda: self.time)
        self.admin = Administration(self.directory, self.store, lambda: self.now)
        self.authenticator = Authenticator(
            [
                CertificateCheck(self.directory),
                KeyCheck(self.directory, now=lambda: self.now),
            ]
        )

    async def tenant(self, name: str = "acme", *identities: str) -> None:
        """Make a tenant."""
        await self.admin.create_tenant(name, "", identities, TenantPolicy(), disabled=False)

    async def key(self, owner: str = "acme", expires_at: float | None = None) -> tuple[str, str]:
        """Make a key: its id, and the key."""
        made, secret = await self.admin.create_key(owner, (), "", expires_at)
        return made.row.id, secret

    async def enters(self, key: str) -> Principal:
        """Who comes in with a key."""
        return await self.authenticator.authenticate(Shown(f"Bearer {key}"))

    async def comes(self, *identities: str) -> Principal:
        """Who comes in with a certificate."""
        return await self.authenticator.authenticate(Shown(identities=identities))


@pytest.fixture
async def house(tmp_path: Path) -> AsyncIterator[House]:
    """One on SQLite."""
    async with opened("", tmp_path) as store:
        yield House(store)


async def refused(work: Awaitable[object], reason: Reason) -> None:
    with pytest.raises(WarmlineError) as caught:
        await work
    assert caught.value.reason is reason


async def test_a_key_is_made_and_opens(house: House) -> None:
    """With the scopes chat and read; the key itself is stored nowhere."""
    await house.tenant()
    key_id, secret = await house.key()
    caller = await house.enters(secret)
    assert (caller.tenant, caller.scopes) == ("acme", frozenset({"chat", "read"}))
    found = await house.store.key(key_id)
    assert found is not None
    assert secret not in repr(found)
    assert found[0].sha256 == hash_key(secret)


async def test_a_revoked_key_is_refused_at_once(house: House) -> None:
    """By the service that revoked it, whatever it remembers."""
    await house.tenant()
    key_id, secret = await house.key()
    await house.enters(secret)
    await house.admin.revoke_key(key_id)
    await refused(house.enters(secret), Reason.KEY_INVALID)


async def test_what_another_service_revokes_holds_within_seconds(house: House) -> None:
    """A key is remembered no longer than that."""
    await house.tenant()
    key_id, secret = await house.key()
    await house.enters(secret)
    await house.store.revoke_key(key_id, NOW)
    house.time = 2.9
    await house.enters(secret)
    house.time = 3.1
    await refused(house.enters(secret), Reason.KEY_INVALID)


async def test_both_keys_are_good_while_they_overlap(house: House) -> None:
    """Then the old one is past its expiry; the new one lives as long as the old one was to."""
    await house.tenant()
    old_id, old = await house.key(expires_at=NOW + 1000)
    house.now = NOW + 100
    new, secret, replaced = await house.admin.rotate_key(old_id, 60.0, None)
    assert (replaced.row.expires_at, new.row.expires_at) == (NOW + 160, NOW + 1100)
    assert (await house.enters(old)).tenant == (await house.enters(secret)).tenant == "acme"
    house.now = NOW + 160
    await refused(house.enters(old), Reason.KEY_EXPIRED)
    await house.enters(secret)
    await refused(house.admin.rotate_key(old_id, 60.0, None), Reason.KEY_NOT_FOUND)


async def test_a_rotated_key_never_lives_longer(house: House) -> None:
    """An overlap beyond its own expiry changes nothing; none at all ends it at once."""
    await house.tenant()
    first, _ = await house.key(expires_at=NOW + 10)
    _, _, replaced = await house.admin.rotate_key(first, 1000.0, NOW + 5000)
    assert replaced.row.expires_at == NOW + 10
    second, secret = await house.key()
    made, _, _ = await house.admin.rotate_key(second, 0.0, None)
    assert made.row.expires_at is None
    await refused(house.enters(secret), Reason.KEY_EXPIRED)


async def test_a_disabled_tenant_is_refused_and_let_in_again(house: House) -> None:
    """By key and by certificate."""
    await house.tenant("acme", "spiffe://x/acme")
    _, secret = await house.key()
    await house.admin.update_tenant("acme", {"disabled": True}, None, OWN)
    await refused(house.enters(secret), Reason.TENANT_DISABLED)
    await refused(house.comes("spiffe://x/acme"), Reason.TENANT_DISABLED)
    await house.admin.update_tenant("acme", {"disabled": False}, None, OWN)
    assert (await house.enters(secret)).tenant == "acme"
    assert (await house.comes("spiffe://x/acme")).tenant == "acme"


async def test_a_removed_tenants_keys_do_not_come_back(house: House) -> None:
    """Also where it is enabled again; and nobody gets its id, nor shuts himself out."""
    await house.tenant()
    _, secret = await house.key()
    await refused(house.admin.remove_tenant("acme", "acme"), Reason.FIELD_INVALID)
    disable = house.admin.update_tenant("acme", {"disabled": True}, None, "acme")
    await refused(disable, Reason.FIELD_INVALID)
    await house.admin.remove_tenant("acme", OWN)
    await refused(house.enters(secret), Reason.KEY_INVALID)
    await house.admin.update_tenant("acme", {"disabled": False}, None, OWN)
    await refused(house.enters(secret), Reason.KEY_INVALID)
    await refused(house.tenant(), Reason.TENANT_EXISTS)


async def test_the_settings_win(house: House) -> None:
    """What is in the file is shown, good, and not to be changed over the wire."""
    admin = house.admin
    await house.tenant()
    await house.key()
    assert (await house.enters(house.fixed_key)).tenant == "fixed"
    assert [(each.row.id, each.fixed) for each in await admin.tenants("", 10)] == [
        ("acme", False),
        ("fixed", True),
    ]
    assert [each.row.id for each in await admin.tenants("acme", 1)] == ["fixed"]
    assert [each.fixed for each in await admin.keys("fixed", "", 10)] == [True]
    await refused(house.tenant("fixed"), Reason.TENANT_EXISTS)
    for change in (
        house.key("fixed"),
        admin.update_tenant("fixed", {}, None, OWN),
        admin.remove_tenant("fixed", OWN),
        admin.revoke_key(house.fixed_id),
        admin.rotate_key(house.fixed_id, 0.0, None),
    ):
        await refused(change, Reason.FIXED_BY_SETTINGS)
    await refused(house.tenant("other", "spiffe://x/fixed"), Reason.IDENTITY_TAKEN)


async def test_a_certificate_stands_for_one_tenant(house: House) -> None:
    """By any of its names; not by none, and not by those of two. A key that is shown as well counts."""
    await house.tenant("acme", "spiffe://x/acme", "acme.example.org")
    await house.tenant("other", "ops@example.org")
    caller = await house.comes("nobody.example.org", "acme.example.org")
    assert (caller.tenant, caller.by) == ("acme", "certificate acme.example.org")
    assert "admin" not in caller.scopes
    assert (await house.comes("spiffe://x/fixed")).tenant == "fixed"
    await refused(house.comes("spiffe://x/nobody"), Reason.KEY_INVALID)
    await refused(house.comes("spiffe://x/acme", "ops@example.org"), Reason.KEY_INVALID)
    both = Shown("Bearer wrong", identities=("spiffe://x/acme",))
    await refused(house.authenticator.authenticate(both), Reason.KEY_INVALID)


async def test_the_first_key_is_made_once(house: House) -> None:
    """It may do everything; where there is any key, none is made."""
    key = await make_first_key(house.store, NOW)
    assert key is not None
    assert (await house.enters(key)).scopes == {"chat", "read", "admin"}
    assert await make_first_key(house.store, NOW) is None


@pytest.mark.virtual_time
async def test_the_last_use_is_noted_once_a_minute(house: House) -> None:
    """Not in the way of the call; what is left is written at the end."""
    await house.tenant()
    key_id, _ = await house.key()
    written: list[float] = []
    clock = asyncio.get_running_loop().time
    last_use = LastUse(house.store, lambda: NOW + clock())
    last_use.start()
    for second in range(0, 130, 10):
        await asyncio.sleep(10 if second else 0.0)
        last_use.note(key_id)
        await asyncio.sleep(0.5)
        found = await house.store.key(key_id)
        assert found is not None
        written.append(found[0].last_used_at or 0.0)
    assert len(set(written)) == 3
    await asyncio.sleep(60)
    last_use.note(key_id)
    await last_use.aclose()
    found = await house.store.key(key_id)
    assert found is not None
    assert found[0].last_used_at is not None
    assert found[0].last_used_at > max(written)


async def test_a_use_that_cannot_be_noted_stops_nothing(house: House) -> None:
    """Neither the call nor the end of the service."""
    await house.tenant()
    key_id, _ = await house.key()
    last_use = LastUse(house.store, lambda: NOW)
    last_use.start()
    await asyncio.to_thread(forbid_writing, house.whole, forbid=True)
    last_use.note(key_id)
    await last_use.aclose()
    found = await house.store.key(key_id)
    assert found is not None
    assert found[0].last_used_at is None


async def test_a_key_that_nobody_has_costs_one_look(house: House) -> None:
    """However often it is tried within the time that is remembered."""
    asked: list[str] = []
    find = house.store.key

    async def counted(key_id: str) -> object:
        asked.append(key_id)
        return await find(key_id)

    house.store.key = counted  # type: ignore[method-assign, assignment]  # counts, and asks all the same
    stranger = f"wl_{secrets.token_hex(4)}_{secrets.token_urlsafe(32)}"
    for _ in range(20):
        await refused(house.enters(stranger), Reason.KEY_INVALID)
    assert len(asked) == 1
