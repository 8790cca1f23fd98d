"""Client certificates as identities: with real ones, over TLS, without any header."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from certificates import Authority, authority
from conversing import Model
from cryptography import x509
from running import events_of, faking, text_of
from shared import ServiceThread, shared_service
from tenancies import tenant
from warmline.v1 import admin_service_pb2 as pb
from warmline_client import Client, WarmlineError, connect

pytestmark = pytest.mark.shared_service
SPIFFE, DNS, EMAIL = "spiffe://example.org/acme", "build.example.org", "ops@example.org"


class Fortress:
    """A service that wants certificates, and who has one."""

    def __init__(self, thread: ServiceThread, clients: Authority, key: str) -> None:
        self._thread = thread
        self._clients = clients
        self._key = key

    def client(self, *names: x509.GeneralName, key: str | None = None) -> Client:
        """A client with a certificate in these names."""
        return connect(
            f"localhost:{self._thread.port}",
            ca_file=self._clients.file,
            certificate=self._clients.client(*names),
            api_key=key,
        )

    def operator(self) -> Client:
        """One with a key beside it, and a certificate that stands for nobody."""
        return self.client(x509.DNSName("operator.example.org"), key=self._key)


@pytest.fixture(scope="module")
def fortress() -> Iterator[Fortress]:
    """One that knows a tenant by its settings."""
    admin, key = tenant("boss", scopes=["admin", "read"])
    acme = {"id": "acme", "identities": [SPIFFE, DNS, EMAIL]}
    with tempfile.TemporaryDirectory() as folder:
        clients = authority(Path(folder))
        settings = {"tls": clients.tls(), "listen": "localhost:0", "cli": faking(Path(folder))}
        with shared_service(Model(), tenants=[acme, admin], **settings) as thread:
            yield Fortress(thread, clients, key)


@pytest.mark.parametrize(
    "name",
    [x509.UniformResourceIdentifier(SPIFFE), x509.DNSName(DNS), x509.RFC822Name(EMAIL)],
    ids=["spiffe", "dns", "email"],
)
async def test_a_certificate_is_who_one_is(fortress: Fortress, name: x509.GeneralName) -> None:
    """The tenant converses, and its session is the tenant's."""
    async with fortress.client(name) as client:
        async with client.chat() as chat:
            assert text_of(await events_of(chat, "hi")) == "echo: hi"
        async with fortress.client(x509.DNSName(DNS)) as same:
            assert (await same.session(chat.session_id)).id == chat.session_id
        async with fortress.operator() as other:
            with pytest.raises(WarmlineError, match="SESSION_NOT_FOUND"):
                await other.session(chat.session_id)


@pytest.mark.parametrize(
    "name",
    [
        x509.DNSName("other.example.org"),
        x509.UniformResourceIdentifier("spiffe://example.org/acme/more"),
        # A name of one kind that looks like one of another.
        x509.DNSName(SPIFFE),
        x509.RFC822Name(SPIFFE),
        x509.DNSName(EMAIL),
        x509.UniformResourceIdentifier(DNS),
    ],
)
async def test_another_name_is_nobody(fortress: Fortress, name: x509.GeneralName) -> None:
    """A certificate of the same CA alone opens nothing, whatever its name looks like."""
    async with fortress.client(name) as client:
        with pytest.raises(WarmlineError, match="KEY_INVALID"):
            await client.models()


async def test_a_certificate_is_no_operators(fortress: Fortress) -> None:
    """It has the scopes chat and read alone."""
    async with fortress.client(x509.DNSName(DNS)) as client:
        with pytest.raises(WarmlineError, match="POLICY_DENIED"):
            await client.admin.pool()


async def test_a_key_counts_where_both_are_shown(fortress: Fortress) -> None:
    """A wrong one is not mended by the certificate."""
    async with fortress.client(x509.DNSName(DNS), key="wl_0000_" + "0" * 43) as client:
        with pytest.raises(WarmlineError, match="KEY_INVALID"):
            await client.models()
    async with fortress.operator() as operator:
        assert await operator.models()


async def test_an_identity_is_given_over_the_wire(fortress: Fortress) -> None:
    """It holds at once, and no longer than the operator wants."""
    mine = x509.UniformResourceIdentifier("spiffe://example.org/new")
    async with fortress.operator() as operator, fortress.client(mine) as client:
        with pytest.raises(WarmlineError, match="KEY_INVALID"):
            await client.models()
        wanted = pb.Tenant(id="new", identities=["spiffe://example.org/new"])
        await operator.admin.create_tenant(wanted)
        assert await client.models()
        await operator.admin.update_tenant(pb.Tenant(id="new"), ["identities"])
        with pytest.raises(WarmlineError, match="KEY_INVALID"):
            await client.models()
        with pytest.raises(WarmlineError, match="IDENTITY_TAKEN"):
            await operator.admin.create_tenant(pb.Tenant(id="thief", identities=[SPIFFE]))
