"""Each tenant's processes are at its own level, which the operator says and nobody else."""

import asyncio
import json
import re
import socket
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
import pytest
from inside import as_python
from parking import failure, say, start_of
from running import TOOLS, faking, running_service, small_settings, text_of
from tenancies import tenant
from warmline.v1 import admin_service_pb2 as admin_pb
from warmline.v1 import events_pb2 as pb
from warmline.v1 import session_config_pb2 as config_pb
from warmline.v1.admin_service_pb2_grpc import AdminServiceStub
from warmline_client import Client, WarmlineError, connect
from warmline_service.config import SandboxSettings
from warmline_service.sandbox import Sandbox, SandboxMissing, find_sandbox, levels_of
from warmline_service.server import Service, Unsafe

real_cli = pytest.mark.real_cli
BYPASS = config_pb.SessionConfig(permission_mode=config_pb.PERMISSION_MODE_BYPASS)
# Of its own accord such a session runs what it is told to.
FREE = config_pb.SessionConfig(tools=config_pb.Tools(allowed=["Bash"]))


@pytest.fixture
def door() -> Iterator[tuple[str, int]]:
    """A port of the machine, which is reached from its own network, or by who is let through to it."""
    with socket.create_server(("127.0.0.1", 0)) as here:
        yield here.getsockname()


@asynccontextmanager
async def levels(*own: str | None, **settings: Any) -> AsyncIterator[tuple[Service, list[str]]]:
    """A service, and the key of a tenant at each level; the last may do everything."""
    made = [tenant(f"tenant-{number}") for number in range(len(own))]
    made[-1][0]["keys"][0]["scopes"] = ["chat", "read", "admin"]
    entries = [
        each | ({"policy": {"sandbox": level}} if level else {})
        for (each, _), level in zip(made, own, strict=True)
    ]
    door = settings.pop("door", ("", 443))
    sandbox = {
        "readable": TOOLS,
        "egress_hosts": ["127.0.0.1"],
        "egress_networks": ["127.0.0.0/8"],
        "egress_ports": [door[1]],
    }
    pool = {"min_spares": 1, "max_spares": 1}
    async with running_service(tenants=entries, sandbox=sandbox, pool=pool, **settings) as service:
        yield service, [key for _, key in made]


def client_with(service: Service, key: str) -> Any:
    """A client with a key."""
    return connect(f"127.0.0.1:{service.port}", api_key=key)


def asked(service: Service, door: tuple[str, int]) -> str:
    """A command that tells how it reaches the network, and whether it sees the service's own files."""
    program = f"""
import os, socket
print("runs")
try:
    socket.create_connection({door!r}, 3)
    print("machine")
except OSError:
    pass
if proxy := os.environ.get("HTTPS_PROXY"):
    with socket.create_connection(("127.0.0.1", int(proxy.rpartition(":")[2])), 3) as way:
        way.sendall(b"CONNECT 127.0.0.1:{door[1]} HTTP/1.1\\r\\n\\r\\n")
        print("network" if b" 200 " in way.recv(100) else "refused")
if os.path.exists({str(service.settings.data_dir / "vault.key")!r}):
    print("files")
"""
    return as_python(program)


async def sees(client: Client, command: str) -> tuple[set[str], pb.LatencyReceipt]:
    """What a new session's process sees, and how it began."""
    async with client.chat(config=FREE) as chat:
        events = await say(chat, f"::tool Bash {json.dumps({'command': command})}")
    assert events[-1].HasField("turn_completed"), text_of(events)
    told = "".join(e.tool_result.text for e in events if e.HasField("tool_result"))
    return set(told.split()), start_of(events)


@real_cli
async def test_each_tenant_runs_at_its_own_level(door: tuple[str, int]) -> None:
    """At the service's own where it has no other, and on a spare then; no spare of another level is lent."""
    async with levels(None, "network", "none", door=door) as (service, keys):
        command, found = asked(service, door), []
        for key in keys:
            async with client_with(service, key) as client:
                found.append(await sees(client, command))
        assert [seen for seen, _ in found] == [
            {"runs"},
            {"runs", "network"},
            {"runs", "machine", "files"},
        ]
        assert [start.start for _, start in found] == [
            pb.START_KIND_WARM,
            pb.START_KIND_COLD,
            pb.START_KIND_COLD,
        ]
        assert [list(start.misses) for _, start in found[1:]] == [["sandbox"], ["sandbox"]]
        async with client_with(service, keys[2]) as client:
            with pytest.raises(WarmlineError) as refused:
                await client.chat(config=BYPASS).__aenter__()
            assert refused.value.reason == "POLICY_DENIED"
        async with client_with(service, keys[1]) as client, client.chat(config=BYPASS) as chat:
            assert (await say(chat, "hello"))[-1].HasField("turn_completed")


@real_cli
async def test_a_level_for_all_is_that_of_the_spares(door: tuple[str, int]) -> None:
    """`policy.sandbox` is what tenants have that say nothing; a stricter one has its own."""
    policy = {"sandbox": "network"}
    async with levels(None, "strict", policy=policy, door=door) as (service, keys):
        command, found = asked(service, door), []
        for key in keys:
            async with client_with(service, key) as client:
                found.append(await sees(client, command))
    assert [seen for seen, _ in found] == [{"runs", "network"}, {"runs"}]
    assert [start.start for _, start in found] == [pb.START_KIND_WARM, pb.START_KIND_COLD]


@real_cli
async def test_a_change_of_level_holds_for_the_next_turn(door: tuple[str, int]) -> None:
    """Also in a session whose process is hot: it goes, with its files kept, and the conversation goes on."""
    async with levels(None, door=door) as (service, (key,)):
        async with grpc.aio.insecure_channel(f"127.0.0.1:{service.port}") as channel:
            admin = _Admin(channel, key)
            await admin("CreateTenant", tenant=_tenant("network"))
            secret = (await admin("CreateApiKey", tenant_id="acme")).secret
            async with client_with(service, secret) as client, client.chat(config=FREE) as chat:
                look = {"command": f"ls; touch file; {asked(service, door)}"}
                script = f"::tool Bash {json.dumps(look)}"
                assert "network" in _told(await say(chat, script))
                assert start_of(await say(chat, "hello")).start == pb.START_KIND_HOT
                await admin("UpdateTenant", tenant=_tenant("strict"))
                events = await say(chat, script)
                assert _told(events).split() == ["file", "runs"]
                assert start_of(events).start == pb.START_KIND_RESUMED
                await admin("UpdateTenant", tenant=_tenant("none"))
                assert _told(await say(chat, script)).split() == [
                    "file",
                    "runs",
                    "machine",
                    "files",
                ]


def _told(events: list[pb.Event]) -> str:
    assert events[-1].HasField("turn_completed"), events[-1]
    return "".join(e.tool_result.text for e in events if e.HasField("tool_result"))


def _tenant(level: str) -> admin_pb.Tenant:
    return admin_pb.Tenant(id="acme", policy=admin_pb.TenantPolicy(sandbox=level))


class _Admin:
    """Calls AdminService with a key."""

    def __init__(self, channel: grpc.aio.Channel, key: str) -> None:
        self._stub: Any = AdminServiceStub(channel)
        self._metadata = (("authorization", f"Bearer {key}"),)

    async def __call__(self, method: str, **fields: Any) -> Any:
        request = getattr(admin_pb, f"{method}Request")(**fields)
        return await getattr(self._stub, method)(request, metadata=self._metadata, timeout=20)


async def test_a_level_that_cannot_be_had_is_refused_by_its_field(tmp_path: Path) -> None:
    """Over the wire, and where the service starts; one that is stored already runs nothing at a lower one."""
    admin, key = tenant("admin", scopes=["chat", "read", "admin"])
    async with running_service(tenants=[admin], cli=faking(tmp_path)) as service:
        async with grpc.aio.insecure_channel(f"127.0.0.1:{service.port}") as channel:
            call = _Admin(channel, key)
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await call("CreateTenant", tenant=_tenant("strict"))
            assert "tenant.policy.sandbox: cannot be had here; there are: none" in str(caught.value)
            await call("CreateTenant", tenant=_tenant("none"))
            secret = (await call("CreateApiKey", tenant_id="acme")).secret
            assert service._store is not None
            stored = {"policy": '{"sandbox": "strict"}'}
            async with client_with(service, secret) as client, client.chat() as chat:
                assert (await say(chat, "hello"))[-1].HasField("turn_completed")
                await service._store.tenants.update("acme", stored, None)
                assert service._callers is not None
                service._callers._directory.forget()
                error = failure(await say(chat, "again"))
                assert (error.reason, error.metadata["sandbox"]) == (
                    "POLICY_DENIED",
                    "strict",
                )
                with pytest.raises(WarmlineError, match="POLICY_DENIED"):
                    await client.chat().__aenter__()


@pytest.mark.parametrize(
    ("settings", "field"),
    [
        ({"policy": {"sandbox": "strict"}}, "policy.sandbox"),
        ({"tenants": [{"id": "a"}, {"id": "b", "policy": {"sandbox": "network"}}]}, "tenants[1]"),
    ],
)
async def test_settings_that_want_more_than_there_is_are_refused(
    tmp_path: Path, settings: dict[str, Any], field: str
) -> None:
    """By name, and nothing is started."""
    made = small_settings(tmp_path, sandbox={"level": "none"}, **settings)
    with pytest.raises(SandboxMissing, match=re.escape(field)):
        find_sandbox(made)
    with pytest.raises(Unsafe, match=re.escape(field)):
        await Service(made).start()


def test_network_is_tried_where_the_service_is_stricter(monkeypatch: pytest.MonkeyPatch) -> None:
    """What the machine cannot hold is no tenant's, and the service's own level is not given up for it."""
    assert levels_of(Sandbox.find(SandboxSettings())) == {"strict", "network", "none"}
    assert levels_of(None) == {"none"}
    monkeypatch.setattr("warmline_service.sandbox._door._python", lambda: "/bin/false")
    assert levels_of(Sandbox.find(SandboxSettings())) == {"strict", "none"}
    with pytest.raises(SandboxMissing, match="network of a sandbox could not be entered"):
        Sandbox.find(SandboxSettings(level="network"))


@real_cli
async def test_a_process_whose_way_out_fails_does_not_begin(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The turn fails, nothing is left of the start, and others go on."""
    async with levels("network", None) as (service, keys):
        with monkeypatch.context() as patch:
            patch.setattr("warmline_service.sandbox._door._python", lambda: "/bin/false")
            async with client_with(service, keys[0]) as client, client.chat() as chat:
                assert failure(await say(chat, "hello")).reason == "CLI_CRASHED"
        for key in reversed(keys):
            async with client_with(service, key) as client, client.chat() as chat:
                async with asyncio.timeout(90):
                    # After such failures the pool waits before it starts another.
                    while not (await say(chat, "hello"))[-1].HasField("turn_completed"):
                        pass
