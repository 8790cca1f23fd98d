"""What the store promises of tenants and their keys, on SQLite and on PostgreSQL alike."""

import asyncio
import secrets
from collections.abc import Awaitable
from pathlib import Path

import pytest
from stores import opened
from warmline_service.errors import Reason, WarmlineError
from warmline_service.store import KeyRow, Store, TenantRow

NOW = 1_800_000_000.5


def tenant(name: str = "acme", *identities: str) -> TenantRow:
    return TenantRow(name, f"The {name}", False, NOW, identities)


def key(owner: str = "acme", **changes: object) -> KeyRow:
    fields: dict[str, object] = {
        "id": secrets.token_hex(4),
        "tenant": owner,
        "sha256": secrets.token_hex(32),
        "scopes": frozenset({"chat", "read"}),
        "note": "laptop",
        "created_at": NOW,
    }
    return KeyRow(**fields | changes)  # type: ignore[arg-type]  # by name


async def refused(work: Awaitable[object], reason: Reason) -> WarmlineError:
    with pytest.raises(WarmlineError) as caught:
        await work
    assert caught.value.reason is reason
    return caught.value


async def test_a_tenant_is_as_it_was_stored(store: Store) -> None:
    """With its identities, in their order; an id is given once."""
    made = tenant("acme", "a.example.org", "spiffe://example.org/acme")
    await store.tenants.create(made)
    assert await store.tenants.tenant("acme") == made
    assert await store.tenants.tenant("other") is None
    await refused(store.tenants.create(tenant("acme")), Reason.TENANT_EXISTS)


async def test_tenants_come_page_by_page(store: Store) -> None:
    """In the order of their ids."""
    for name in ("c", "a", "b"):
        await store.tenants.create(tenant(name))
    assert [row.id for row in await store.tenants.tenants("", 2)] == ["a", "b"]
    assert [row.id for row in await store.tenants.tenants("b", 2)] == ["c"]


async def test_an_update_changes_what_it_names(store: Store) -> None:
    """Columns and identities, each apart; nothing where there is no such tenant."""
    tenants = store.tenants
    await tenants.create(tenant("acme", "one", "two"))
    assert (await tenants.update("acme", {"disabled": True}, None)).identities == ("one", "two")
    changed = await tenants.update("acme", {}, {"two", "three"})
    assert (changed.disabled, changed.identities) == (True, ("three", "two"))
    assert (await tenants.identified_by("three")) == changed
    assert await tenants.identified_by("one") is None
    await refused(tenants.update("nobody", {"disabled": True}, None), Reason.TENANT_NOT_FOUND)


async def test_an_identity_is_of_one_tenant(store: Store) -> None:
    """Taken by another it is refused, and nothing has changed; given up it is free."""
    tenants = store.tenants
    await tenants.create(tenant("acme", "one"))
    await refused(tenants.create(tenant("other", "one")), Reason.IDENTITY_TAKEN)
    assert await tenants.tenant("other") is None
    await tenants.create(tenant("other"))
    error = await refused(
        tenants.update("other", {"disabled": True}, {"one"}), Reason.IDENTITY_TAKEN
    )
    assert error.metadata["tenantId"] == "acme"
    assert await tenants.tenant("other") == tenant("other")
    await tenants.update("acme", {}, ())
    await tenants.update("other", {}, {"one"})


async def test_a_key_is_as_it_was_stored(store: Store) -> None:
    """And says whether its tenant is disabled; it needs one."""
    tenants = store.tenants
    await tenants.create(tenant())
    made = key(expires_at=NOW + 10, scopes=frozenset({"admin"}))
    await tenants.create_key(made)
    assert await tenants.key(made.id) == (made, False)
    await tenants.update("acme", {"disabled": True}, None)
    assert await tenants.key(made.id) == (made, True)
    assert await tenants.key("ffffffff") is None
    await refused(tenants.create_key(key("nobody")), Reason.TENANT_NOT_FOUND)


async def test_keys_come_page_by_page(store: Store) -> None:
    """One tenant's, in the order of their ids."""
    for name in ("acme", "other"):
        await store.tenants.create(tenant(name))
    made = sorted((key() for _ in range(3)), key=lambda row: row.id)
    for row in (*made, key("other")):
        await store.tenants.create_key(row)
    assert await store.tenants.keys("acme", "", 2) == made[:2]
    assert await store.tenants.keys("acme", made[1].id, 2) == made[2:]


async def test_a_replaced_key_ends_and_its_successor_is_there(store: Store) -> None:
    """Both or neither: what has ended is not replaced."""
    tenants = store.tenants
    await tenants.create(tenant())
    old, new = key(), key(created_at=NOW + 1)
    await tenants.create_key(old)
    replaced = await tenants.replace_key(old.id, NOW + 60, new)
    assert replaced.expires_at == NOW + 60
    assert await tenants.key(new.id) == (new, False)
    for ended in (key(expires_at=NOW), key(revoked_at=NOW)):
        await tenants.create_key(ended)
        successor = key()
        await refused(tenants.replace_key(ended.id, NOW + 60, successor), Reason.KEY_NOT_FOUND)
        assert await tenants.key(successor.id) is None


async def test_a_revoked_key_stays_so(store: Store) -> None:
    """Since the first time."""
    await store.tenants.create(tenant())
    made = key()
    await store.tenants.create_key(made)
    assert (await store.tenants.revoke_key(made.id, NOW + 1)).revoked_at == NOW + 1
    assert (await store.tenants.revoke_key(made.id, NOW + 2)).revoked_at == NOW + 1
    await refused(store.tenants.revoke_key("ffffffff", NOW), Reason.KEY_NOT_FOUND)


async def test_who_is_shut_out_has_nothing_left(store: Store) -> None:
    """Disabled, without identities, with keys that are revoked; others keep theirs."""
    tenants = store.tenants
    for name in ("acme", "other"):
        await tenants.create(tenant(name, f"{name}.example.org"))
    mine, others = key(), key("other")
    for row in (mine, others):
        await tenants.create_key(row)
    await tenants.shut_out("acme", NOW + 5)
    left = await tenants.tenant("acme")
    assert left is not None
    assert (left.disabled, left.identities) == (True, ())
    found = await tenants.key(mine.id)
    assert found is not None
    assert found[0].revoked_at == NOW + 5
    assert await tenants.key(others.id) == (others, False)
    await refused(tenants.shut_out("nobody", NOW), Reason.TENANT_NOT_FOUND)


async def test_the_last_use_only_goes_on(store: Store) -> None:
    """Whatever the order in which services write it."""
    await store.tenants.create(tenant())
    made = key()
    await store.tenants.create_key(made)
    for time in (NOW + 60, NOW + 30):
        await store.tenants.used({made.id: time, "ffffffff": time})
    found = await store.tenants.key(made.id)
    assert found is not None
    assert found[0].last_used_at == NOW + 60


async def test_there_is_one_first_key(store_url: str, tmp_path: Path) -> None:
    """However many services start at once, and never beside another key."""
    async with opened(store_url, tmp_path, "one") as one, opened(store_url, tmp_path, "two") as two:
        assert not await one.tenants.any_access()
        made = await asyncio.gather(
            *(
                store.tenants.create_first_key(tenant("admin"), key("admin"))
                for store in (one, two, one, two)
            )
        )
        assert sorted(made) == [False, False, False, True]
        assert await one.tenants.any_access()
        assert len(await one.tenants.keys("admin", "", 10)) == 1
