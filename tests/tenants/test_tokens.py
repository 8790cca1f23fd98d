"""Tokens of a real issuer, good ones and all kinds of bad ones."""

from __future__ import annotations

import asyncio
import base64
import json
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from issuer import AUDIENCE, Issuer
from pydantic import ValidationError
from stores import opened
from warmline_service.config import IssuerSettings, TenantSettings
from warmline_service.errors import Reason, WarmlineError
from warmline_service.store import Store, TenantRow
from warmline_service.tenants import Directory, Principal, Shown, TokenCheck


class Office:
    """Checks the tokens of one issuer, by a clock that stands still."""

    def __init__(self, issuer: Issuer, store: Store, **settings: Any) -> None:
        self.issuer = issuer
        self.time = 1000.0
        fields = {"issuer": issuer.url, "audience": AUDIENCE} | settings
        directory = Directory([TenantSettings(id="acme")], store.tenants)
        self.check = TokenCheck([IssuerSettings(**fields)], directory, lambda: self.time)

    async def enters(self, token: str) -> Principal:
        """Who comes in."""
        shown = Shown(f"Bearer {token}")
        assert self.check.knows(shown)
        return await self.check.check(shown)

    async def refuses(self, token: str) -> Reason:
        """Why nobody comes in; nothing of the token is said."""
        with pytest.raises(WarmlineError) as caught:
            await self.enters(token)
        assert token not in str(caught.value)
        return caught.value.reason


@pytest.fixture
async def issuer() -> AsyncIterator[Issuer]:
    """One that is up."""
    made = Issuer()
    async with made.serving():
        yield made


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[Store]:
    """With a tenant that is disabled."""
    async with opened("", tmp_path) as store:
        await store.tenants.create(TenantRow("shut", "", disabled=True, created_at=1.0))
        await store.tenants.create(TenantRow("stored", "", disabled=False, created_at=1.0))
        yield store


@pytest.fixture
async def office(issuer: Issuer, store: Store) -> AsyncIterator[Office]:
    """With the default settings."""
    made = Office(issuer, store)
    yield made
    await made.check.aclose()


async def test_a_good_token_names_its_tenant(office: Office) -> None:
    """By its claim; the keys are found by discovery, and fetched once."""
    for _ in range(3):
        caller = await office.enters(office.issuer.token())
    assert (caller.tenant, caller.by) == ("acme", "token someone")
    assert caller.scopes == frozenset({"chat", "read"})
    assert (await office.enters(office.issuer.token(tenant="stored"))).tenant == "stored"
    assert office.issuer.asked == ["/.well-known/openid-configuration", "/keys"]


@pytest.mark.parametrize(
    ("claims", "reason"),
    [
        ({"exp": time.time() - 3600}, Reason.KEY_EXPIRED),
        ({"exp": None}, Reason.KEY_INVALID),
        ({"exp": "soon"}, Reason.KEY_INVALID),
        ({"nbf": time.time() + 3600}, Reason.KEY_INVALID),
        ({"aud": "another"}, Reason.KEY_INVALID),
        ({"aud": None}, Reason.KEY_INVALID),
        ({"iss": "https://elsewhere.example.org"}, Reason.KEY_INVALID),
        ({"iss": None}, Reason.KEY_INVALID),
        ({"tenant": "nobody"}, Reason.KEY_INVALID),
        ({"tenant": None}, Reason.KEY_INVALID),
        ({"tenant": ["acme"]}, Reason.KEY_INVALID),
        ({"tenant": "shut"}, Reason.TENANT_DISABLED),
    ],
)
async def test_a_claim_that_is_wrong_is_refused(
    office: Office, claims: dict[str, Any], reason: Reason
) -> None:
    """Also where it is missing."""
    assert await office.refuses(office.issuer.token(**claims)) is reason


async def test_clocks_may_differ_a_little(office: Office) -> None:
    """By half a minute, as the setting says."""
    await office.enters(office.issuer.token(exp=time.time() - 20, nbf=time.time() + 20))


async def test_a_token_does_not_choose_how_it_is_checked(issuer: Issuer, store: Store) -> None:
    """Unsigned, signed by what is public, by another kind of key, by a key that it brings itself."""
    key = rsa.generate_private_key(65537, 2048)
    issuer.rotate("rsa", key)
    office = Office(issuer, store)
    await office.enters(issuer.token(algorithm="RS256"))
    public = key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    claims = jwt.decode(issuer.token(algorithm="RS256"), options={"verify_signature": False})
    unsigned = f"{_part({'alg': 'none', 'kid': 'rsa'})}.{_part(claims)}."
    assert await office.refuses(unsigned) is Reason.KEY_INVALID
    # PyJWT would not sign so; somebody else would.
    confused = jwt.PyJWS().encode(
        json.dumps(claims).encode(), base64.b64encode(public), "HS256", {"kid": "rsa"}
    )
    assert await office.refuses(confused) is Reason.KEY_INVALID
    mine = ec.generate_private_key(ec.SECP256R1())
    assert await office.refuses(issuer.token(by="rsa", key=mine)) is Reason.KEY_INVALID
    for header in ({"jwk": {"kty": "oct", "k": "AAAA"}}, {"jku": "http://127.0.0.1/keys"}):
        forged = issuer.token(by="first", header={"kid": "rsa"} | header)
        assert await office.refuses(forged) is Reason.KEY_INVALID
    assert await office.refuses(issuer.token(algorithm="PS256")) is Reason.KEY_INVALID
    await office.check.aclose()


def _part(content: object) -> str:
    return base64.urlsafe_b64encode(json.dumps(content).encode()).decode().rstrip("=")


@pytest.mark.parametrize(
    "token",
    [
        "eyJ..",
        "eyJhbGciOiJFUzI1NiJ9.!!!.x",
        f"eyJhbGciOiJFUzI1NiJ9.{'W1tb' * 3000}.eA",
        f"{_part({'alg': 'ES256', 'kid': {}})}.{_part([])}.eA",
        f"eyJhbGciOiJFUzI1NiJ9.{_part({'iss': {}})}.eA",
        "eyJ" + "a" * 20_000 + ".a.a",
    ],
)
async def test_what_is_no_token_is_refused(office: Office, token: str) -> None:
    """Before anybody is asked for keys."""
    assert await office.refuses(token) is Reason.KEY_INVALID
    assert office.issuer.asked == []


async def test_a_tampered_token_is_refused(office: Office) -> None:
    """Another's claims under a good signature."""
    head, _, signature = office.issuer.token().split(".")
    _, body, _ = office.issuer.token(tenant="stored").split(".")
    assert await office.refuses(f"{head}.{body}.{signature}") is Reason.KEY_INVALID


async def test_new_keys_are_fetched_when_a_token_has_one(office: Office) -> None:
    """And the old ones are good no more, once the issuer does not show them."""
    old = office.issuer.token()
    await office.enters(old)
    office.issuer.rotate("second")
    office.time += 31
    await office.enters(office.issuer.token())
    assert await office.refuses(old) is Reason.KEY_INVALID


async def test_made_up_key_names_cost_the_issuer_nothing(office: Office) -> None:
    """One look in half a minute, however many tokens come; good ones pass meanwhile."""
    await office.enters(office.issuer.token())
    office.issuer.asked.clear()
    office.time += 31
    flood = [office.issuer.token(header={"kid": f"made-up-{number}"}) for number in range(50)]
    found = await asyncio.gather(*(office.refuses(token) for token in flood))
    assert set(found) == {Reason.KEY_INVALID}
    await office.enters(office.issuer.token())
    assert office.issuer.asked.count("/keys") == 1


async def test_many_first_tokens_make_one_request(office: Office) -> None:
    """They wait for the same keys; who is given up takes them from nobody."""
    tokens = [office.issuer.token() for _ in range(20)]
    waiting = [asyncio.create_task(office.enters(token)) for token in tokens]
    await asyncio.sleep(0)
    waiting[0].cancel()
    found = await asyncio.gather(*waiting, return_exceptions=True)
    assert sum(isinstance(each, Principal) for each in found) == 19
    assert office.issuer.asked.count("/keys") == 1


async def test_while_the_issuer_is_down_known_keys_are_good(office: Office) -> None:
    """For a day; a token with another key cannot be judged. When it is back all is well."""
    good = office.issuer.token(exp=time.time() + 1000)
    await office.enters(good)
    office.issuer.down = True
    for passed in (31, 3600, 12 * 3600):
        office.time += passed
        await office.enters(good)
    office.time += 6
    unknown = office.issuer.token(header={"kid": "second"})
    assert await office.refuses(unknown) is Reason.ISSUER_UNAVAILABLE
    office.time += 24 * 3600
    assert await office.refuses(good) is Reason.ISSUER_UNAVAILABLE
    office.issuer.down = False
    office.time += 6
    await office.enters(good)


async def test_an_issuer_that_never_answered_is_tried_again(office: Office) -> None:
    """A few seconds later, and not with each call."""
    office.issuer.down = True
    for _ in range(5):
        assert await office.refuses(office.issuer.token()) is Reason.ISSUER_UNAVAILABLE
    assert len(office.issuer.asked) == 1
    office.issuer.down = False
    office.time += 6
    await office.enters(office.issuer.token())


async def test_a_discovery_document_of_another_is_not_taken(office: Office) -> None:
    """Whoever answers there has to say that he is the issuer."""
    office.issuer.claimed_url = "https://elsewhere.example.org"
    assert await office.refuses(office.issuer.token()) is Reason.ISSUER_UNAVAILABLE


@pytest.mark.parametrize(
    "changes",
    [{"use": "enc"}, {"alg": "ES384"}, {"kty": "oct", "k": "AAAA"}, {"x": "AAAA"}, {"crv": ["P"]}],
)
async def test_a_key_that_cannot_verify_is_none(office: Office, changes: dict[str, Any]) -> None:
    """It is passed over, and the token refused."""
    office.issuer.rotate("second", **changes)
    assert await office.refuses(office.issuer.token()) is Reason.KEY_INVALID


async def test_a_short_key_is_none(issuer: Issuer, store: Store) -> None:
    """RSA has at least 2048 bits."""
    issuer.rotate("short", rsa.generate_private_key(65537, 1024))  # noqa: S505  # that is the point
    office = Office(issuer, store)
    with pytest.warns(jwt.warnings.InsecureKeyLengthWarning):
        token = issuer.token(algorithm="RS256")
    assert await office.refuses(token) is Reason.KEY_INVALID
    await office.check.aclose()


async def test_a_token_without_a_key_name_has_the_only_key(office: Office) -> None:
    """Where there is one alone that fits."""
    token = office.issuer.token(header={"kid": ""})
    assert (await office.enters(token)).tenant == "acme"


@pytest.mark.parametrize(
    ("claim", "scopes"),
    [
        ("openid chat", {"chat"}),
        (["read", "admin"], {"read"}),
        ("", set()),
        (None, set()),
        ({"chat": True}, set()),
    ],
)
async def test_a_claim_may_list_scopes(
    issuer: Issuer, store: Store, claim: Any, scopes: set[str]
) -> None:
    """Of those that the settings allow, and no others."""
    office = Office(issuer, store, scope_claim="scope")
    assert (await office.enters(issuer.token(scope=claim))).scopes == scopes
    await office.check.aclose()


@pytest.mark.parametrize(
    "settings",
    [
        {"issuer": "http://login.example.org"},
        {"jwks_url": "http://login.example.org/keys"},
        {"issuer": "ftp://login.example.org"},
        {"algorithms": ["HS256"]},
        {"algorithms": ["none"]},
        {"audience": ""},
    ],
)
def test_settings_that_would_trust_anybody_are_refused(settings: dict[str, Any]) -> None:
    """Keys come by https, and whoever verifies must not be able to sign."""
    with pytest.raises(ValidationError):
        IssuerSettings(**{"issuer": "https://login.example.org", "audience": "a"} | settings)
