"""Tenants and keys over the wire, as an operator manages them."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterable, AsyncIterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from parking import end_of_turn, say
from running import faking, service_in
from tenancies import administered
from warmline.v1 import admin_service_pb2 as pb
from warmline.v1 import admin_service_pb2_grpc as pb_grpc
from warmline.v1 import options_pb2 as options
from warmline_client import WarmlineError, connect
from warmline_client._errors import from_rpc_error
from warmline_service.errors import WarmlineError as ServiceError
from warmline_service.rpc._policy import policy_of


class Operator:
    """Calls AdminService with a key."""

    def __init__(self, address: str, channel: grpc.aio.Channel, key: str) -> None:
        self.address = address
        self.key = key
        self._stub: Any = pb_grpc.AdminServiceStub(channel)

    async def __call__(self, method: str, **fields: Any) -> Any:
        """Call a method; raises WarmlineError."""
        request = getattr(pb, f"{method}Request")(**fields)
        metadata = (("authorization", f"Bearer {self.key}"),)
        try:
            return await getattr(self._stub, method)(request, metadata=metadata, timeout=20)
        except grpc.aio.AioRpcError as error:
            raise from_rpc_error(error) from error

    async def refused(self, method: str, **fields: Any) -> WarmlineError:
        """Why it is refused."""
        with pytest.raises(WarmlineError) as caught:
            await self(method, **fields)
        return caught.value

    async def models(self, key: str) -> int:
        """How many models a key shows; raises WarmlineError."""
        async with connect(self.address, api_key=key) as client:
            return len(await client.models())


@pytest.fixture
async def operator(tmp_path: Path) -> AsyncIterator[Operator]:
    """Somebody with the first key of a service."""
    async with administered(tmp_path) as (address, key):
        async with grpc.aio.insecure_channel(address) as channel:
            yield Operator(address, channel, key)


async def test_a_tenant_gets_keys_and_loses_them(operator: Operator) -> None:
    """Made, listed, used, rotated, revoked; what the key itself is, is in one answer."""
    made = (await operator("CreateTenant", tenant=pb.Tenant(id="acme", display_name="Acme"))).tenant
    assert (made.id, made.display_name, made.fixed) == ("acme", "Acme", False)
    assert abs(made.create_time.seconds - time.time()) < 60
    created = await operator("CreateApiKey", tenant_id="acme", note="laptop")
    assert created.api_key.scopes == [options.SCOPE_CHAT, options.SCOPE_READ]
    assert await operator.models(created.secret)
    rotated = await operator("RotateApiKey", key_id=created.api_key.id)
    left = rotated.replaced.expire_time.seconds - time.time()
    assert 24 * 3600 - 60 < left <= 24 * 3600
    assert rotated.api_key.note == "laptop"
    assert await operator.models(created.secret) == await operator.models(rotated.secret)
    revoked = (await operator("RevokeApiKey", key_id=created.api_key.id)).api_key
    assert revoked.HasField("revoke_time")
    with pytest.raises(WarmlineError, match="KEY_INVALID"):
        await operator.models(created.secret)
    keys = (await operator("ListApiKeys", tenant_id="acme")).api_keys
    assert {key.id for key in keys} == {created.api_key.id, rotated.api_key.id}
    assert created.secret not in str(keys)


async def test_a_tenant_is_changed_field_by_field(operator: Operator) -> None:
    """What the mask does not name stays; a disabled one is not let in; a removed one stays out."""
    names = ["spiffe://example.org/acme"]
    tenant = pb.Tenant(id="acme", display_name="Acme", identities=names)
    await operator("CreateTenant", tenant=tenant)
    key = (await operator("CreateApiKey", tenant_id="acme")).secret
    change = pb.Tenant(id="acme", disabled=True)
    changed = await operator("UpdateTenant", tenant=change, update_mask={"paths": ["disabled"]})
    assert (changed.tenant.display_name, list(changed.tenant.identities)) == ("Acme", names)
    with pytest.raises(WarmlineError, match="TENANT_DISABLED"):
        await operator.models(key)
    unchanged = (await operator("UpdateTenant", tenant=pb.Tenant(id="acme"))).tenant
    assert unchanged == changed.tenant
    renamed = pb.Tenant(id="acme", display_name="New", identities=names)
    renamed = (await operator("UpdateTenant", tenant=renamed)).tenant
    assert (renamed.display_name, renamed.disabled) == ("New", True)
    await operator("UpdateTenant", tenant=pb.Tenant(id="acme"), update_mask={"paths": ["*"]})
    assert await operator.models(key)
    assert not (await operator("GetTenant", tenant_id="acme")).tenant.identities
    await operator("DeleteTenant", tenant_id="acme")
    assert (await operator("GetTenant", tenant_id="acme")).tenant.disabled
    with pytest.raises(WarmlineError, match="KEY_INVALID"):
        await operator.models(key)
    assert (await operator.refused("DeleteTenant", tenant_id="admin")).fields.keys() == {
        "tenant_id"
    }


async def test_a_tenant_has_a_policy_of_its_own(operator: Operator) -> None:
    """It holds for the next call, is shown as it was given, and is taken back as a whole."""
    policy = pb.TenantPolicy(requests_per_minute=3, models=pb.TenantPolicy.Names(names=["haiku"]))
    made = await operator("CreateTenant", tenant=pb.Tenant(id="acme", policy=policy))
    assert made.tenant.policy.requests_per_minute == 3
    assert list(made.tenant.policy.models.names) == ["haiku"]
    assert not made.tenant.policy.HasField("usd_per_day")
    key = (await operator("CreateApiKey", tenant_id="acme")).secret
    assert [await operator.models(key) for _ in range(3)] == [1, 1, 1]
    with pytest.raises(WarmlineError, match="RATE_LIMITED"):
        await operator.models(key)
    await operator("UpdateTenant", tenant=pb.Tenant(id="acme"), update_mask={"paths": ["policy"]})
    assert await operator.models(key) == 2
    assert not (await operator("GetTenant", tenant_id="acme")).tenant.HasField("policy")


@pytest.mark.parametrize(
    ("policy", "field"),
    [
        ({"requests_per_minute": 0}, "requests_per_minute"),
        ({"tokens_per_day": 2**64 - 1}, "tokens_per_day"),
        ({"usd_per_day": -1.0}, "usd_per_day"),
        ({"usd_per_month": float("nan")}, "usd_per_month"),
        ({"permission_modes": {"names": ["default", "root"]}}, "permission_modes.names[1]"),
        ({"mcp_hosts": {"names": ["*.*"]}}, "mcp_hosts.names[0]"),
        ({"egress_hosts": {"names": ["*", "https://a.example"]}}, "egress_hosts.names[1]"),
        ({"providers": {"names": ["loopback", "openai"]}}, "providers.names[1]"),
        ({"sandbox": "chroot"}, "sandbox"),
        ({"sandbox": "strict"}, "sandbox"),
        ({"forbidden_tools": {"names": [""]}}, "forbidden_tools.names[0]"),
    ],
)
async def test_a_policy_that_cannot_be_is_named(policy: dict[str, Any], field: str) -> None:
    """By its field."""
    with pytest.raises(ServiceError) as caught:
        policy_of(pb.TenantPolicy(**policy), "tenant.policy", ["none"])
    (violation,) = caught.value.violations
    assert violation.field == f"tenant.policy.{field}"


async def test_pages_follow_each_other(operator: Operator) -> None:
    """All of them, each once."""
    for name in ("c", "a", "b"):
        await operator("CreateTenant", tenant=pb.Tenant(id=name))
        await operator("CreateApiKey", tenant_id="admin")
    found, token = [], ""
    for _ in range(2):
        page = await operator("ListTenants", page_size=2, page_token=token)
        found += [tenant.id for tenant in page.tenants]
        token = page.next_page_token
    assert (found, token) == (["a", "admin", "b", "c"], "")
    first = await operator("ListApiKeys", tenant_id="admin", page_size=3)
    rest = await operator("ListApiKeys", tenant_id="admin", page_token=first.next_page_token)
    ids = [key.id for key in (*first.api_keys, *rest.api_keys)]
    assert (len(ids), ids) == (4, sorted(set(ids)))


async def test_a_credential_goes_in_and_never_comes_out(operator: Operator) -> None:
    """What is told of it is what it is; it goes with its tenant, and is nobody else's."""
    await operator("CreateTenant", tenant=pb.Tenant(id="acme"))
    answers = [
        await operator("SetCredential", tenant_id="acme", name="key", api_key="s3cret", note="n"),
        await operator(
            "SetCredential",
            tenant_id="acme",
            name="max",
            is_default=True,
            oauth={
                "access_token": "s3cret-access",
                "refresh_token": "s3cret-refresh",
                "expire_time": {"seconds": 2_000_000_000},
                "scopes": ["user:inference"],
                "subscription_type": "max",
            },
        ),
    ]
    first = await operator("ListCredentials", tenant_id="acme", page_size=1)
    rest = await operator("ListCredentials", tenant_id="acme", page_token=first.next_page_token)
    answers += [first, rest]
    (key,), (tokens,) = first.credentials, rest.credentials
    assert (key.name, key.kind, key.note) == ("key", pb.StoredCredential.KIND_API_KEY, "n")
    assert not key.HasField("expire_time")
    assert (tokens.kind, tokens.is_default) == (pb.StoredCredential.KIND_OAUTH, True)
    assert (tokens.expire_time.seconds, tokens.scopes) == (2_000_000_000, ["user:inference"])
    assert tokens.subscription_type == "max"
    assert not any(b"s3cret" in each.SerializeToString() for each in answers)
    again = await operator("SetCredential", tenant_id="acme", name="key", api_key="s3cret-2")
    assert again.credential.create_time == key.create_time
    assert again.credential.note == ""
    assert not (await operator("ListCredentials", tenant_id="admin")).credentials
    await operator("DeleteCredential", tenant_id="acme", name="key")
    await operator("DeleteTenant", tenant_id="acme")
    assert not (await operator("ListCredentials", tenant_id="acme")).credentials


BAD: list[tuple[str, dict[str, Any], str]] = [
    ("CreateTenant", {}, "tenant.id"),
    ("CreateTenant", {"tenant": pb.Tenant(id="Acme")}, "tenant.id"),
    ("CreateTenant", {"tenant": pb.Tenant(id="../acme")}, "tenant.id"),
    ("CreateTenant", {"tenant": pb.Tenant(id="a" * 64)}, "tenant.id"),
    ("CreateTenant", {"tenant": pb.Tenant(id="own-" + "0" * 40)}, "tenant.id"),
    ("CreateTenant", {"tenant": pb.Tenant(id="a", display_name="x" * 201)}, "tenant.display_name"),
    ("CreateTenant", {"tenant": pb.Tenant(id="a", display_name="x\n")}, "tenant.display_name"),
    ("CreateTenant", {"tenant": pb.Tenant(id="a", identities=["b", ""])}, "tenant.identities[1]"),
    ("CreateTenant", {"tenant": pb.Tenant(id="a", identities=["*.b"])}, "tenant.identities[0]"),
    ("CreateTenant", {"tenant": pb.Tenant(id="a", identities=["b"] * 101)}, "tenant.identities"),
    ("GetTenant", {}, "tenant_id"),
    ("ListTenants", {"page_size": -1}, "page_size"),
    ("ListTenants", {"page_token": "%"}, "page_token"),
    ("UpdateTenant", {"tenant": pb.Tenant(id="admin"), "update_mask": {"paths": ["id"]}}, ""),
    ("DeleteTenant", {"tenant_id": ""}, "tenant_id"),
    ("CreateApiKey", {"tenant_id": "admin", "scopes": [options.SCOPE_CHAT, 77]}, "scopes[1]"),
    ("CreateApiKey", {"tenant_id": "admin", "scopes": [0]}, "scopes[0]"),
    ("CreateApiKey", {"tenant_id": "admin", "note": "\x1b[2J"}, "note"),
    ("CreateApiKey", {"tenant_id": "admin", "expire_time": {"seconds": 1}}, "expire_time"),
    ("CreateApiKey", {"tenant_id": "admin", "expire_time": {"seconds": 2**60}}, "expire_time"),
    ("ListApiKeys", {"tenant_id": "admin", "page_token": "x"}, "page_token"),
    ("RotateApiKey", {"key_id": "wl_abcd_s3cret"}, "key_id"),
    ("RotateApiKey", {"key_id": "abcd", "overlap": {"seconds": -1}}, "overlap"),
    ("RotateApiKey", {"key_id": "abcd", "overlap": {"seconds": 91 * 86400}}, "overlap"),
    ("RevokeApiKey", {}, "key_id"),
    ("SetCredential", {"name": "a", "api_key": "s3cret"}, "tenant_id"),
    ("SetCredential", {"tenant_id": "admin", "api_key": "s3cret"}, "name"),
    ("SetCredential", {"tenant_id": "admin", "name": "S3cret", "api_key": "a"}, "name"),
    ("SetCredential", {"tenant_id": "admin", "name": "a"}, "secret"),
    ("SetCredential", {"tenant_id": "admin", "name": "a", "api_key": ""}, "api_key"),
    ("SetCredential", {"tenant_id": "admin", "name": "a", "api_key": "s3cret\n"}, "api_key"),
    ("SetCredential", {"tenant_id": "admin", "name": "a", "api_key": "s3cr\u00e9t"}, "api_key"),
    ("SetCredential", {"tenant_id": "admin", "name": "a", "api_key": "x" * 8193}, "api_key"),
    (
        "SetCredential",
        {"tenant_id": "admin", "name": "a", "api_key": "s3cret", "note": "\x07"},
        "note",
    ),
    *(
        ("SetCredential", {"tenant_id": "admin", "name": "a", "oauth": oauth}, f"oauth.{field}")
        for oauth, field in (
            ({}, "access_token"),
            ({"access_token": "a", "refresh_token": "s3cret b"}, "refresh_token"),
            ({"access_token": "a", "expire_time": {"seconds": -1}}, "expire_time"),
            ({"access_token": "a", "expire_time": {"seconds": 2**60}}, "expire_time"),
            ({"access_token": "a", "scopes": ["b", "c d"]}, "scopes[1]"),
            ({"access_token": "a", "scopes": ["b"] * 33}, "scopes"),
            ({"access_token": "a", "subscription_type": "x" * 65}, "subscription_type"),
        )
    ),
    ("ListCredentials", {}, "tenant_id"),
    ("ListCredentials", {"tenant_id": "admin", "page_token": "%"}, "page_token"),
    ("DeleteCredential", {"tenant_id": "admin", "name": "../a"}, "name"),
]
MISSING: list[tuple[str, dict[str, Any], str]] = [
    ("GetTenant", {"tenant_id": "nobody"}, "TENANT_NOT_FOUND"),
    ("UpdateTenant", {"tenant": pb.Tenant(id="nobody")}, "TENANT_NOT_FOUND"),
    ("DeleteTenant", {"tenant_id": "nobody"}, "TENANT_NOT_FOUND"),
    ("CreateApiKey", {"tenant_id": "nobody"}, "TENANT_NOT_FOUND"),
    ("ListApiKeys", {"tenant_id": "nobody"}, "TENANT_NOT_FOUND"),
    ("RotateApiKey", {"key_id": "ffffffff"}, "KEY_NOT_FOUND"),
    ("RevokeApiKey", {"key_id": "ffffffff"}, "KEY_NOT_FOUND"),
    (
        "SetCredential",
        {"tenant_id": "nobody", "name": "a", "api_key": "s3cret"},
        "TENANT_NOT_FOUND",
    ),
    ("ListCredentials", {"tenant_id": "nobody"}, "TENANT_NOT_FOUND"),
    ("DeleteCredential", {"tenant_id": "nobody", "name": "a"}, "TENANT_NOT_FOUND"),
    ("DeleteCredential", {"tenant_id": "admin", "name": "a"}, "CREDENTIAL_NOT_FOUND"),
    ("CreateTenant", {"tenant": pb.Tenant(id="admin")}, "TENANT_EXISTS"),
]


async def test_what_is_wrong_is_named(operator: Operator) -> None:
    """Each bad field by its path, and nothing is said of what was in it; each lack by its reason."""
    for method, fields, path in BAD:
        error = await operator.refused(method, **fields)
        assert error.reason == "FIELD_INVALID", (method, fields)
        assert set(error.fields) == {path or "update_mask.paths[0]"}, (method, fields)
        assert "s3cret" not in str(error.fields.values())
    for method, fields, reason in MISSING:
        assert (await operator.refused(method, **fields)).reason == reason, (method, fields)


async def test_the_pool_is_shown(operator: Operator) -> None:
    """In the words of its states."""
    pool = await operator("GetPool")
    assert pool.processes["spare"] >= 1
    assert (pool.max_processes, pool.waiting, pool.draining) == (6, 0, False)
    assert 0 < pool.memory_bytes < pool.memory_budget_bytes


async def test_an_operator_has_the_service_stop(tmp_path: Path) -> None:
    """As a signal does: whoever runs it is told."""
    async with service_in(tmp_path / "data", cli=faking(tmp_path)) as service:
        address = f"127.0.0.1:{service.port}"
        async with grpc.aio.insecure_channel(address) as channel:
            assert not service.drain_asked.is_set()
            await Operator(address, channel, "")("Drain")
            assert service.drain_asked.is_set()


async def test_streams_of_who_is_shut_out_end(operator: Operator) -> None:
    """Those that converse and those that only read, with the reason; others' go on, and so does the turn."""
    await operator("CreateTenant", tenant=pb.Tenant(id="acme"))
    first, second = [await operator("CreateApiKey", tenant_id="acme") for _ in range(2)]
    async with connect(operator.address, api_key=second.secret) as friend:
        async with connect(operator.address, api_key=first.secret) as client:
            async with client.chat() as chat, friend.chat() as other:
                turn = await chat.send("!deltas 30 100")
                watched = client.watch(chat.session_id)
                await anext(watched)
                await operator("RevokeApiKey", key_id=first.api_key.id)
                for stream in (turn, watched):
                    with pytest.raises(WarmlineError, match="revoked"):
                        await _to_the_end(stream)
                assert (await say(other, "hi"))[-1].HasField("turn_completed")
                await end_of_turn(friend, chat.session_id)


async def _to_the_end(stream: AsyncIterable[object]) -> None:
    async with asyncio.timeout(20):
        async for _ in stream:
            pass
