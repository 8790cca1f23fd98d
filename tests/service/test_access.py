"""Who gets in: API keys, TLS, client certificates, tenants apart."""

from pathlib import Path
from typing import Any

import fake_cli
import grpc
import pytest
import trustme
from grpc_health.v1 import health_pb2, health_pb2_grpc
from issuer import AUDIENCE, Issuer
from kept import contents, secret_of
from running import (
    data_directory,
    events_of,
    faking,
    running_service,
    service_in,
    small_settings,
    text_of,
)
from tenancies import tenant, two_tenants
from warmline.v1 import admin_service_pb2 as admin_pb
from warmline_client import WarmlineError, connect
from warmline_service.server import Service, Unsafe


async def test_a_key_is_needed_for_every_call_but_health(tmp_path: Path) -> None:
    """Without a key, and with a wrong one, every method is UNAUTHENTICATED; health is open."""
    async with two_tenants(tmp_path) as (address, key, _):
        for bad in (None, key + "x", "sk-ant-api-key"):
            async with connect(address, api_key=bad) as client:
                with pytest.raises(WarmlineError, match="KEY_INVALID"):
                    await client.models()
                with pytest.raises(WarmlineError, match="KEY_INVALID"):
                    await client.chat().__aenter__()
                with pytest.raises(WarmlineError, match="KEY_INVALID"):
                    await anext(client.ask("hi"))
        async with grpc.aio.insecure_channel(address) as channel:
            health = health_pb2_grpc.HealthStub(channel)
            for name in ("", "warmline.v1.ChatService", "warmline.v1.ModelService"):
                answer = await health.Check(health_pb2.HealthCheckRequest(service=name))
                assert answer.status == health_pb2.HealthCheckResponse.SERVING


async def test_a_tenant_does_not_see_anothers_session(tmp_path: Path) -> None:
    """Another tenant's session answers as one that does not exist."""
    async with two_tenants(tmp_path) as (address, first, second):
        async with connect(address, api_key=first) as owner, owner.chat() as chat:
            await events_of(chat, "mine")
            session = chat.session_id
        async with connect(address, api_key=second) as other:
            for identifier in (session, "01234567-89ab-cdef-0123-456789abcdef"):
                with pytest.raises(WarmlineError, match="SESSION_NOT_FOUND"):
                    await other.chat(session_id=identifier).__aenter__()
        async with connect(address, api_key=first) as owner:
            async with owner.chat(session_id=session) as chat:
                assert text_of(await events_of(chat, "still")) == "echo: still"


async def test_a_key_without_the_scope_is_refused(tmp_path: Path) -> None:
    """A key for reading may list models and not converse."""
    reader, key = tenant("reader", scopes=["read"])
    cli = {"path": fake_cli.install(tmp_path / "fake")}
    async with running_service(tenants=[reader], cli=cli) as service:
        async with connect(f"127.0.0.1:{service.port}", api_key=key) as client:
            assert await client.models()
            with pytest.raises(WarmlineError, match="POLICY_DENIED"):
                await client.chat().__aenter__()


async def test_a_token_of_a_trusted_issuer_opens(tmp_path: Path) -> None:
    """Its claim names the tenant, in the settings or made over the wire; its scopes are the token's."""
    issuer, boss, key = Issuer(), *tenant("boss", scopes=["admin"])
    async with issuer.serving():
        trusted = {"issuer": issuer.url, "audience": AUDIENCE, "scope_claim": "scope"}
        async with running_service(
            tenants=[{"id": "acme"}, boss], oidc=[trusted], cli=faking(tmp_path)
        ) as service:
            address = f"127.0.0.1:{service.port}"
            token = issuer.token(scope="chat read")
            async with connect(address, api_key=token) as client, client.chat() as chat:
                assert text_of(await events_of(chat, "hi")) == "echo: hi"
            for scope, new, reason in (
                ("chat", "acme", "POLICY_DENIED"),
                ("read", "new", "KEY_INVALID"),
            ):
                token = issuer.token(scope=scope, tenant=new)
                async with connect(address, api_key=token) as client:
                    with pytest.raises(WarmlineError, match=reason):
                        await client.models()
            async with connect(address, api_key=key) as operator:
                await operator.admin.create_tenant(admin_pb.Tenant(id="new"))
            async with connect(address, api_key=token) as client:
                assert await client.models()


async def test_a_tenant_has_so_many_streams(tmp_path: Path) -> None:
    """One more stream than allowed is QUOTA_EXCEEDED, until one ends."""
    cli = {"path": fake_cli.install(tmp_path / "fake")}
    async with running_service(cli=cli, limits={"streams_per_tenant": 1}) as service:
        async with connect(f"127.0.0.1:{service.port}") as client:
            async with client.chat():
                with pytest.raises(WarmlineError, match="QUOTA_EXCEEDED"):
                    await client.chat().__aenter__()
            async with client.chat():
                pass


@pytest.mark.parametrize(
    "changes",
    [
        {"listen": "0.0.0.0:0"},
        {"listen": "[::]:0"},
        {"listen": "example.com:0"},
        {"auth": "required"},
        {"provider": {"caller_credentials": True, "caller_tenants": True}},
    ],
)
async def test_without_a_key_nobody_is_served_but_this_machine(
    tmp_path: Path, changes: dict[str, Any]
) -> None:
    """A port that others can reach, or that asks who calls, needs a key, or somebody to show one to."""
    cli = {"path": fake_cli.install(tmp_path / "fake")}
    with pytest.raises(Unsafe, match="no API key"):
        await Service(small_settings(tmp_path / "data", cli=cli, **changes)).start()


async def test_the_first_key_is_shown_once(tmp_path: Path) -> None:
    """It may do everything, also after a restart; nobody comes in without, and it is stored nowhere."""
    shown: list[str] = []
    settings: dict[str, Any] = {"cli": faking(tmp_path), "auth": "required"}
    with data_directory() as data:
        async with service_in(data, shown.append, **settings) as service:
            assert len(shown) == 1
            await _comes_in(service, shown[0])
        # It has a key now: whatever the settings say, callers are asked for one.
        async with service_in(data, shown.append, cli=settings["cli"]) as service:
            await _comes_in(service, shown[0])
        assert len(shown) == 1
        kept = contents(data)
    secret = secret_of(shown[0]).encode()
    assert not any(secret in each for each in kept)


async def _comes_in(service: Service, key: str) -> None:
    address = f"127.0.0.1:{service.port}"
    async with connect(address, api_key=key) as client, connect(address) as stranger:
        assert await client.models()
        with pytest.raises(WarmlineError, match="KEY_INVALID"):
            await stranger.models()


async def test_without_a_credential_the_real_provider_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The service says what to set, and leaves nothing behind."""
    monkeypatch.delenv("ANTHROPIC_API_KEY", raising=False)
    cli = {"path": fake_cli.install(tmp_path / "fake")}
    settings = small_settings(tmp_path / "data", provider={"kind": "anthropic"}, cli=cli)
    with pytest.raises(Unsafe, match="ANTHROPIC_API_KEY"):
        await Service(settings).start()


async def test_tls_and_client_certificates(tmp_path: Path) -> None:
    """With TLS a client verifies the server; with a client CA it must show a certificate."""
    ca, clients = trustme.CA(), trustme.CA()
    server, user = ca.issue_cert("localhost", "127.0.0.1"), clients.issue_cert("user@example.org")
    files = {
        name: tmp_path / f"{name}.pem"
        for name in ("ca", "clients", "key", "chain", "mine", "my_key")
    }
    ca.cert_pem.write_to_path(str(files["ca"]))
    clients.cert_pem.write_to_path(str(files["clients"]))
    server.private_key_pem.write_to_path(str(files["key"]))
    server.cert_chain_pems[0].write_to_path(str(files["chain"]))
    user.cert_chain_pems[0].write_to_path(str(files["mine"]))
    user.private_key_pem.write_to_path(str(files["my_key"]))
    tls = {"certificate": files["chain"], "key": files["key"], "client_ca": files["clients"]}
    cli = {"path": fake_cli.install(tmp_path / "fake")}
    async with running_service(tls=tls, cli=cli) as service:
        address = f"localhost:{service.port}"
        certificate = (files["mine"], files["my_key"])
        async with connect(address, ca_file=files["ca"], certificate=certificate) as client:
            async with client.chat() as chat:
                assert text_of(await events_of(chat, "hi")) == "echo: hi"
        for refused in (
            connect(address, ca_file=files["ca"]),
            connect(address, ca_file=files["clients"], certificate=certificate),
            connect(address),
        ):
            async with refused as client:
                with pytest.raises(WarmlineError, match="UNAVAILABLE"):
                    await client.models()
