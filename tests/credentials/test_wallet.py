"""What is stored for tenants to pay with: sealed, found by name, renewed once by whoever comes first."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from authorization import AuthorizationServer
from pydantic import ValidationError
from stores import opened
from warmline_service.config import OAuthSettings
from warmline_service.credentials import Secret, Stored, TokenEndpoint, Wallet
from warmline_service.errors import Reason, WarmlineError
from warmline_service.store import CredentialRow, CredentialStore, Store
from warmline_service.vault import Vault

NOW = 1_800_000_000.0
VAULT = Vault(bytes(32))


class Clock:
    """Stands still until it is set."""

    def __init__(self) -> None:
        self.time = NOW

    def __call__(self) -> float:
        return self.time


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
async def server() -> AsyncIterator[AuthorizationServer]:
    """One that is up."""
    made = AuthorizationServer()
    async with made.serving():
        yield made


@asynccontextmanager
async def wallet_on(
    store: Store, clock: Clock, server: AuthorizationServer | None = None, **settings: Any
) -> AsyncIterator[Wallet]:
    """One service's wallet."""
    endpoint = TokenEndpoint(server.settings(**settings)) if server is not None else None
    wallet = Wallet(store.credentials, VAULT, endpoint, clock, clock)
    yield wallet
    await wallet.aclose()


@pytest.fixture
async def wallet(store: Store, clock: Clock, server: AuthorizationServer) -> AsyncIterator[Wallet]:
    """One that can renew."""
    async with wallet_on(store, clock, server) as made:
        yield made


async def put_tokens(wallet: Wallet, server: AuthorizationServer, left: float | None) -> str:
    """Store tokens as `max` with so many seconds left; gives the access token."""
    access, refresh = server.give()
    expires_at = None if left is None else NOW + left
    secret = Secret(access, refresh)
    await wallet.put("acme", "max", secret, oauth=True, is_default=True, expires_at=expires_at)
    return access


async def current(wallet: Wallet, name: str = "max") -> Stored:
    found = await wallet.current("acme", name)
    assert found is not None
    return found


async def refused(wallet: Wallet, tenant: str = "acme", name: str = "max") -> WarmlineError:
    with pytest.raises(WarmlineError) as caught:
        await wallet.current(tenant, name)
    return caught.value


async def test_one_is_found_by_its_name_and_by_default(wallet: Wallet, store: Store) -> None:
    """Sealed in the store; the default is one at a time, and nobody else's."""
    assert await wallet.current("acme", "") is None
    await wallet.put("acme", "a", Secret("k3y-one"), oauth=False, is_default=True)
    await wallet.put("acme", "b", Secret("k3y-two"), oauth=False, is_default=True, note="n")
    assert (await current(wallet, "a")).secret.value == "k3y-one"
    assert (await current(wallet, "")).secret.value == "k3y-two"
    rows = await wallet.page("acme", "", 10)
    assert [(row.name, row.is_default, row.note) for row in rows] == [
        ("a", False, ""),
        ("b", True, "n"),
    ]
    assert "k3y" not in str(rows)
    assert "k3y" not in repr(await current(wallet, "a"))
    assert (await refused(wallet, "other", "a")).reason is Reason.CREDENTIAL_NOT_FOUND
    assert await wallet.current("other", "") is None
    assert await store.credentials.any_stored()


async def test_what_is_stored_again_counts_at_once(wallet: Wallet) -> None:
    """All of it; and so does that it was removed."""
    await wallet.put("acme", "a", Secret("k3y-one"), oauth=False, is_default=True)
    assert (await current(wallet, "")).secret.value == "k3y-one"
    await wallet.put("acme", "a", Secret("k3y-two"), oauth=False)
    assert (await current(wallet, "a")).secret.value == "k3y-two"
    assert await wallet.current("acme", "") is None
    await wallet.remove("acme", "a")
    assert (await refused(wallet, name="a")).reason is Reason.CREDENTIAL_NOT_FOUND
    with pytest.raises(WarmlineError, match="CREDENTIAL_NOT_FOUND"):
        await wallet.remove("acme", "a")


async def test_another_services_change_counts_soon(store: Store, clock: Clock) -> None:
    """Within three seconds."""
    async with wallet_on(store, clock) as one, wallet_on(store, clock) as two:
        await one.put("acme", "a", Secret("k3y-one"), oauth=False)
        assert (await current(two, "a")).secret.value == "k3y-one"
        await one.put("acme", "a", Secret("k3y-two"), oauth=False)
        clock.time += 3
        assert (await current(two, "a")).secret.value == "k3y-two"


class _Breaking(CredentialStore):
    """May be out of order."""

    broken = False

    async def find(self, tenant: str, name: str) -> CredentialRow | None:
        """As long as it works."""
        if self.broken:
            raise WarmlineError(Reason.STORAGE_UNAVAILABLE, "down")
        return await super().find(tenant, name)


async def test_an_outage_of_the_store_ends_no_turn(store: Store, clock: Clock) -> None:
    """What was known counts for ten minutes; what was not cannot be said."""
    breaking = _Breaking(store._database)
    wallet = Wallet(breaking, VAULT, None, clock, clock)
    await wallet.put("acme", "a", Secret("k3y-one"), oauth=False)
    known = await current(wallet, "a")
    assert await wallet.current("acme", "") is None
    breaking.broken = True
    for left in (3, 596):
        clock.time += left
        assert await current(wallet, "a") == known
        assert await wallet.current("acme", "") is None
        assert (await refused(wallet, name="b")).reason is Reason.STORAGE_UNAVAILABLE
    clock.time += 3
    assert (await refused(wallet, name="a")).reason is Reason.STORAGE_UNAVAILABLE


async def test_a_turn_waits_through_an_outage(store: Store, clock: Clock) -> None:
    """It needs to know what to pay with, as far as it is patient; whoever only looks is told at once."""
    breaking = _Breaking(store._database)
    wallet = Wallet(breaking, VAULT, None, clock, clock, patience=30)
    await wallet.put("acme", "a", Secret("k3y-one"), oauth=False)
    breaking.broken = True
    with pytest.raises(WarmlineError, match="STORAGE_UNAVAILABLE"):
        await wallet.find("acme", "a")
    asking = [asyncio.create_task(current(wallet, "a")) for _ in range(2)]
    await asyncio.sleep(0)
    breaking.broken = False
    assert [each.secret.value for each in await asyncio.gather(*asking)] == ["k3y-one"] * 2
    breaking.broken = True
    asked = asyncio.create_task(refused(wallet, name="b"))
    await asyncio.sleep(0)
    clock.time += 30
    assert (await asked).reason is Reason.STORAGE_UNAVAILABLE


async def test_another_vault_opens_nothing(store: Store, clock: Clock) -> None:
    """It says so, and what to do."""
    async with wallet_on(store, clock) as wallet:
        await wallet.put("acme", "a", Secret("k3y-one"), oauth=False)
    other = Wallet(store.credentials, Vault(bytes(31) + b"1"))
    error = await refused(other, name="a")
    assert error.reason is Reason.CREDENTIAL_REJECTED
    assert "SetCredential" in error.message


async def test_fifty_that_come_at_its_end_renew_it_once(
    wallet: Wallet, server: AuthorizationServer, clock: Clock, store: Store
) -> None:
    """All have the new one; what renews it next is stored, too."""
    old = await put_tokens(wallet, server, left=600)
    assert (await current(wallet)).secret.value == old
    clock.time += 600
    found = await asyncio.gather(*(current(wallet) for _ in range(50)))
    assert {each.secret.value for each in found} == server.access
    (asked,) = server.asked
    assert asked["grant_type"] == "refresh_token"
    assert asked["client_id"] == "warmline-test"
    assert asked["content-type"] == "application/x-www-form-urlencoded"
    row = found[0].row
    assert (row.expires_at, row.scopes) == (NOW + 4200, ("user:inference", "user:profile"))
    async with wallet_on(store, clock, server) as after:
        assert (await current(after)).secret.refresh_token in server.refresh


async def test_two_services_renew_it_once(
    postgres_url: str, tmp_path: Path, clock: Clock, server: AuthorizationServer
) -> None:
    """The one that comes later waits for what the first one stores, and has the same."""
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    async with (
        opened(postgres_url, tmp_path / "a") as first,
        opened(postgres_url, tmp_path / "b") as second,
        wallet_on(first, clock, server) as one,
        wallet_on(second, clock, server) as two,
    ):
        await put_tokens(one, server, left=0)
        server.open.clear()
        both = [asyncio.create_task(current(each)) for each in (one, two) for _ in range(5)]
        await asyncio.wait_for(server.came.wait(), 60)
        _, waiting = await asyncio.wait(both, timeout=0.5)
        assert len(waiting) == len(both)
        server.open.set()
        async with asyncio.timeout(60):
            found = await asyncio.gather(*both)
    assert {each.secret.value for each in found} == server.access
    assert len(server.asked) == 1


async def test_it_is_renewed_ahead_of_its_end(
    wallet: Wallet, server: AuthorizationServer, clock: Clock
) -> None:
    """Five minutes before; while that fails the old one is good to its end."""
    old = await put_tokens(wallet, server, left=3600)
    clock.time += 3299
    assert (await current(wallet)).secret.value == old
    assert not server.asked
    clock.time += 1
    server.answer = (503, "")
    assert (await current(wallet)).secret.value == old
    assert len(server.asked) == 1
    clock.time += 11
    server.answer = None
    assert (await current(wallet)).secret.value != old


async def test_a_short_life_is_not_renewed_all_the_time(
    wallet: Wallet, server: AuthorizationServer, clock: Clock
) -> None:
    """The last quarter of it is the time for that."""
    server.lifetime = 60
    await put_tokens(wallet, server, left=0)
    first = await current(wallet)
    clock.time += 44
    assert await current(wallet) == first
    clock.time += 1
    assert await current(wallet) != first


async def test_a_failure_is_remembered_until_another_is_stored(
    store: Store, clock: Clock, server: AuthorizationServer
) -> None:
    """By every service; the text says what to do and nothing that is secret."""
    async with wallet_on(store, clock, server) as one, wallet_on(store, clock, server) as two:
        await put_tokens(one, server, left=0)
        known = set(server.refresh)
        server.refresh.clear()
        found = await asyncio.gather(
            *(one.current("acme", "max") for _ in range(50)), return_exceptions=True
        )
        assert {getattr(each, "reason", None) for each in found} == {Reason.CREDENTIAL_REJECTED}
        error = await refused(two)
        assert len(server.asked) == 1
        assert error.metadata == {"credential": "max"}
        assert "SetCredential" in error.message
        assert not any(secret in str(error.__dict__) for secret in (*known, *server.access))
        new = await put_tokens(two, server, left=600)
        clock.time += 3
        assert (await current(one)).secret.value == new
        server.refresh.clear()
        clock.time += 600
        await refused(one)
        clock.time += 61
        await refused(one)
        assert len(server.asked) == 3


BAD_ANSWERS = [
    (500, "s3cret"),
    (302, "s3cret"),
    (200, "s3cret"),
    (200, '{"access_token": 7}'),
    (200, '{"access_token": ""}'),
    (200, '{"access_token": "s3cret\\n"}'),
    (200, '{"access_token": "a", "refresh_token": "s3cret b"}'),
    (200, '{"access_token": "' + "a" * 9000 + '"}'),
    (200, " " * 70_000 + '{"access_token": "a"}'),
    (200, "[" * 10_000),
]


async def test_a_bad_answer_is_none(
    clock: Clock, server: AuthorizationServer, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """Whatever it is: the token is as it was, and nothing of the answer is told."""
    async with opened("", tmp_path) as store, wallet_on(store, clock, server) as wallet:
        for answer in BAD_ANSWERS:
            await put_tokens(wallet, server, left=0)
            server.answer = answer
            error = await refused(wallet)
            assert error.retry_after == 10, answer
            assert "s3cret" not in str(error.__dict__)
        assert len(server.asked) == len(BAD_ANSWERS)
    assert "s3cret" not in "".join(capfd.readouterr())


async def test_without_an_endpoint_or_a_refresh_token_it_ends(
    store: Store, clock: Clock, server: AuthorizationServer
) -> None:
    """It is good until it has expired."""
    async with wallet_on(store, clock) as off, wallet_on(store, clock, server) as on:
        old = await put_tokens(off, server, left=10)
        assert (await current(off)).secret.value == old
        clock.time += 10
        assert (await refused(off)).reason is Reason.CREDENTIAL_REJECTED
        await on.put("acme", "max", Secret("a"), oauth=True, expires_at=NOW)
        assert (await refused(on)).reason is Reason.CREDENTIAL_REJECTED
    assert not server.asked


async def test_a_refused_one_is_renewed_once(
    wallet: Wallet, server: AuthorizationServer, clock: Clock
) -> None:
    """Whoever comes with the old one has the new one; a new one that is refused is not renewed again."""
    await put_tokens(wallet, server, left=None)
    old = await current(wallet)
    found = await asyncio.gather(*(wallet.another(old) for _ in range(20)))
    assert {each.secret.value for each in found if each is not None} == server.access
    assert (await wallet.another(old)) == found[0]
    assert found[0] is not None
    assert await wallet.another(found[0]) is None
    assert len(server.asked) == 1
    clock.time += 61
    assert await wallet.another(found[0]) is not None


async def test_a_key_that_is_refused_has_no_other(wallet: Wallet) -> None:
    """Unless somebody has stored one meanwhile."""
    await wallet.put("acme", "max", Secret("k3y-one"), oauth=False)
    old = await current(wallet)
    assert await wallet.another(old) is None
    await wallet.put("acme", "max", Secret("k3y-two"), oauth=False)
    newer = await wallet.another(old)
    assert newer is not None
    assert newer.secret.value == "k3y-two"


async def test_what_is_stored_meanwhile_wins(wallet: Wallet, server: AuthorizationServer) -> None:
    """What the server answers then is dropped, and who waits has what was stored."""
    await put_tokens(wallet, server, left=0)
    server.open.clear()
    waiting = asyncio.create_task(current(wallet))
    await asyncio.wait_for(server.came.wait(), 60)
    await wallet.put("acme", "max", Secret("k3y"), oauth=False)
    server.open.set()
    assert (await waiting).secret.value == "k3y"
    assert (await current(wallet)).secret.value == "k3y"


async def test_who_is_given_up_takes_it_from_nobody(
    wallet: Wallet, server: AuthorizationServer
) -> None:
    """What the server has given is stored, although nobody waits for it any more."""
    await put_tokens(wallet, server, left=0)
    server.open.clear()
    waiting = asyncio.create_task(current(wallet))
    await asyncio.wait_for(server.came.wait(), 60)
    waiting.cancel()
    await asyncio.wait({waiting})
    server.open.set()
    assert (await current(wallet)).secret.value in server.access
    assert len(server.asked) == 1


async def test_what_could_not_be_stored_is_not_lost(
    wallet: Wallet,
    server: AuthorizationServer,
    store: Store,
    clock: Clock,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The refresh token is used up by then: the next attempt stores what it has given."""
    await put_tokens(wallet, server, left=0)
    unavailable = WarmlineError(Reason.STORAGE_UNAVAILABLE, "down")

    async def fail(*_: object) -> bool:
        raise unavailable

    with monkeypatch.context() as patch:
        patch.setattr(store.credentials, "refresh", fail)
        assert (await refused(wallet)).reason is Reason.STORAGE_UNAVAILABLE
    clock.time += 60
    assert (await current(wallet)).secret.value in server.access
    assert len(server.asked) == 1


async def test_some_servers_want_json(
    store: Store, clock: Clock, server: AuthorizationServer
) -> None:
    """And some say nothing of an end."""
    server.lifetime = None
    async with wallet_on(store, clock, server, encoding="json") as wallet:
        await put_tokens(wallet, server, left=0)
        assert (await current(wallet)).row.expires_at is None
    assert server.asked[0]["content-type"] == "application/json"


def test_tokens_go_nowhere_without_tls() -> None:
    """Unless it is this machine."""
    with pytest.raises(ValidationError, match="must be https"):
        OAuthSettings(token_url="http://example.org/token", client_id="c")
