"""At level `network`: what a session's own tools reach by the proxy, and what they do not."""

import asyncio
import contextlib
import re
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import grpc
import pytest
import trustme
from google.protobuf.json_format import MessageToDict
from inside import bash, python, tenant
from parking import client_of
from running import TOOLS, running_service
from tenancies import tenant as tenant_entry
from warmline.v1 import audit_service_pb2 as audit_pb
from warmline.v1.audit_service_pb2_grpc import AuditServiceStub
from warmline_client import connect
from warmline_service.server import Service

pytestmark = pytest.mark.real_cli

_CURL = "curl -sS -m 10 -o /dev/null -w '%{http_connect} %{http_code}\\n'"


@dataclass
class Site:
    """A server with TLS, at an address of this machine that is in nobody's `no_proxy`."""

    port: int
    waiting: asyncio.Semaphore
    ended: asyncio.Semaphore

    @property
    def url(self) -> str:
        """Where it is."""
        return f"https://127.0.0.2:{self.port}"


@pytest.fixture
async def site(tmp_path: Path) -> AsyncIterator[Site]:
    """Answers `GET /` with a word; who asks for `/wait` is not answered."""
    made = Site(0, asyncio.Semaphore(0), asyncio.Semaphore(0))

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        if head.startswith(b"GET /wait"):
            made.waiting.release()
        else:
            writer.write(
                b"HTTP/1.1 200 OK\r\nContent-Length: 7\r\nConnection: close\r\n\r\nreached"
            )
        with contextlib.suppress(ConnectionError):  # Its end is what counts.
            await reader.read()
        writer.close()
        made.ended.release()

    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    trustme.CA().issue_cert("127.0.0.2").configure_cert(context)
    async with await asyncio.start_server(serve, "127.0.0.2", 0, ssl=context) as server:
        made.port = server.sockets[0].getsockname()[1]
        yield made


@asynccontextmanager
async def leading(site: Site, *own: list[str]) -> AsyncIterator[tuple[Service, list[str]]]:
    """A service at level `network`, and the key of a tenant for each list of hosts; the last may do all."""
    made = [tenant_entry(f"tenant-{number}") for number in range(len(own))]
    if made:
        made[-1][0]["keys"][0]["scopes"] = ["chat", "read", "admin"]
    entries = [
        entry | {"policy": {"egress_hosts": hosts}}
        for (entry, _), hosts in zip(made, own, strict=True)
    ]
    sandbox = {
        "level": "network",
        "readable": TOOLS,
        "egress_hosts": ["127.0.0.2"],
        "egress_networks": ["127.0.0.2/32"],
        "egress_ports": [site.port, 443],
    }
    pool = {"min_spares": 1, "max_spares": 1}
    async with running_service(sandbox=sandbox, pool=pool, tenants=entries) as service:
        yield service, [key for _, key in made]


async def test_tools_find_the_way_by_themselves(site: Site) -> None:
    """curl and Python, by their environment; without the proxy there is nothing, and http is told so."""
    async with leading(site) as (service, _), client_of(service) as client:
        async with tenant(client, {}, "one") as chat:
            assert await bash(chat, f"curl -sSk {site.url}") == "reached"
            program = "import ssl, urllib.request as r\nc = ssl._create_unverified_context()\n"
            program += f"print(r.urlopen({site.url!r}, context=c, timeout=10).read().decode())"
            assert await python(chat, program) == "reached"
            assert "Failed to connect" in await bash(chat, f"curl -sSk --noproxy '*' {site.url}")
            told = await bash(chat, f"curl -sS http://127.0.0.2:{site.port}")
            assert told == "Only https goes out here: nothing is forwarded but by CONNECT."


async def test_what_policy_does_not_allow_is_refused(site: Site) -> None:
    """Other hosts, the machine's loopback, its network, its cloud and the service's port."""
    async with leading(site, ["*"]) as (service, (key,)):
        others = [
            *("127.0.0.1", "localhost", "127.0.0.3", "[::1]", "169.254.169.254", "10.0.0.1"),
            *(f"127.0.0.1:{service.port}", f"127.0.0.2:{service.port}"),
        ]
        commands = [f"{_CURL} -k --noproxy '' https://{each}" for each in others]
        async with connect(f"127.0.0.1:{service.port}", api_key=key) as client:
            async with tenant(client, {}, "one") as chat:
                told = await bash(chat, "; ".join(commands))
            assert re.findall(r"^\d+ \d+$", told, re.MULTILINE) == ["403 000"] * len(others)
            events = await _events(service, key, "egress.refused")
    wanted = {each.partition(":")[0] for each in others} - {"["} | {"::1"}
    assert {MessageToDict(event.detail)["host"] for event in events} == wanted
    assert {(event.outcome, event.tenant) for event in events} == {("POLICY_DENIED", "tenant-0")}


async def test_what_is_allowed_is_told_once(site: Site) -> None:
    """For each process and host, in the audit log."""
    async with leading(site, ["127.0.0.2"]) as (service, (key,)):
        async with connect(f"127.0.0.1:{service.port}", api_key=key) as client:
            async with tenant(client, {}, "one") as chat:
                for _ in range(2):
                    await bash(chat, f"curl -sSk {site.url}; curl -sSk {site.url}")
                (event,) = await _events(service, key, "egress.allowed")
                assert event.session_id == chat.session_id
    assert MessageToDict(event.detail) == {"host": "127.0.0.2", "port": site.port}


async def _events(service: Service, key: str, action: str) -> list[audit_pb.AuditEvent]:
    """What the audit log has of something until now."""
    assert service._audit is not None
    assert await service._audit.written()
    wanted = audit_pb.ListAuditEventsRequest(filter=audit_pb.AuditFilter(action_prefix=action))
    async with grpc.aio.insecure_channel(f"127.0.0.1:{service.port}") as channel:
        page = await AuditServiceStub(channel).ListAuditEvents(
            wanted, metadata=(("authorization", f"Bearer {key}"),)
        )
    return list(page.events)


async def test_each_tenant_reaches_its_own_hosts(site: Site) -> None:
    """By the process it has, whichever spare that was."""
    async with leading(site, ["127.0.0.2"], ["other.example"]) as (service, keys):
        told = []
        for key in keys:
            async with connect(f"127.0.0.1:{service.port}", api_key=key) as client:
                async with tenant(client, {}, "one") as chat:
                    told.append(await bash(chat, f"{_CURL} -k {site.url}"))
    assert told[0] == "200 200"
    assert told[1].splitlines()[-1] == "403 000"


async def test_tunnels_end_with_the_process(site: Site) -> None:
    """What is in the background too."""
    async with leading(site) as (service, _), client_of(service) as client:
        async with tenant(client, {}, "one") as chat:
            await bash(chat, f"setsid curl -sk {site.url}/wait >/dev/null 2>&1 & echo begun")
            await asyncio.wait_for(site.waiting.acquire(), 30)
            assert await bash(chat, f"curl -sk {site.url}") == "reached"
            await asyncio.wait_for(site.ended.acquire(), 30)
            assert site.ended.locked()
        await client.delete(chat.session_id)
        await asyncio.wait_for(site.ended.acquire(), 30)
