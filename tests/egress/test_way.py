"""The way to the network: what policy lets through, what it does not, and what nobody can overdo."""

import asyncio
import contextlib
import socket
import threading
from collections.abc import AsyncIterator
from typing import Any

import pytest
from egress.outlets import ACCESS, Told, Upstream, reaching, way_out
from hypothesis import example, given
from hypothesis import strategies as st
from warmline_service.addresses import is_own
from warmline_service.config import SandboxSettings, TenantPolicy
from warmline_service.egress import Access, Bounds, Egress, Way
from warmline_service.egress._account import Account
from warmline_service.egress._outlet import _KNOWN, Outlet, Target, Turned
from warmline_service.egress._tunnel import BUFFER, parse_target
from warmline_service.errors import Reason, WarmlineError
from warmline_service.worker import Slot

pytestmark = pytest.mark.usefixtures("tasks_end")


@pytest.fixture
def told() -> Told:
    """No tenant has a policy of its own, and nothing was recorded."""
    return Told()


@pytest.fixture
async def upstream() -> AsyncIterator[Upstream]:
    """A server on this machine."""
    async with Upstream().running() as running:
        yield running


def _named(monkeypatch: pytest.MonkeyPatch, **names: list[str]) -> None:
    """Have hosts of `.example` at these addresses."""

    def getaddrinfo(host: str, port: int, **_: Any) -> list[Any]:
        found = names.get(host.removesuffix(".example"), [])
        if not found:
            raise socket.gaierror(socket.EAI_NONAME, "not known")
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (each, port)) for each in found]

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)


async def test_bytes_go_both_ways(told: Told, upstream: Upstream) -> None:
    """To the end of each: who has said all still hears the rest. It is told once for each host."""
    async with way_out(told, **reaching(upstream)) as slot:
        for _ in range(2):
            reader, writer = await slot.opened(f"127.0.0.1:{upstream.port}")
            writer.write(b"abc" * 100_000)
            writer.write_eof()
            assert await reader.read() == b"ABC" * 100_000
    assert told.events == [("egress.allowed", {"host": "127.0.0.1", "port": upstream.port})]


async def test_what_comes_with_the_head_is_passed_on(told: Told, upstream: Upstream) -> None:
    """A client need not wait for the answer."""
    async with way_out(told, **reaching(upstream)) as slot:
        reader, writer = await slot.ask(f"127.0.0.1:{upstream.port}")
        writer.write(b"early")
        writer.write_eof()
        assert (await reader.read()).endswith(b"\r\n\r\nEARLY")


async def test_a_host_is_known_by_its_name(
    told: Told, upstream: Upstream, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In capitals and with a dot at its end too; not by an address that it has."""
    _named(monkeypatch, **{"a.served": ["127.0.0.1"], "served": ["127.0.0.1"]})
    async with way_out(told, **reaching(upstream, "*.served.example")) as slot:
        for name in ("a.served.example", "A.Served.Example", "a.served.example."):
            await slot.opened(f"{name}:{upstream.port}")
        for name in ("served.example", "127.0.0.1", "a.served.example.evil"):
            answer = await slot.told(f"{name}:{upstream.port}")
            assert answer.startswith("HTTP/1.1 403 Forbidden\r\n")
            assert answer.endswith(
                f"\n{name} is refused: policy allows no connections to this host.\n"
            )
    refused = [detail["host"] for action, detail in told.events if action == "egress.refused"]
    assert refused == ["served.example", "127.0.0.1", "a.served.example.evil"]


@pytest.mark.parametrize(
    "target",
    [
        *("127.0.0.1:443", "localhost:443", "127.1:443", "2130706433:443", "[::1]:443"),
        *("169.254.169.254:443", "10.0.0.1:443", "192.168.1.1:443", "0.0.0.0:443"),
        *("[::ffff:127.0.0.1]:443", "[fd00:ec2::254]:443", "[64:ff9b::a9fe:a9fe]:443"),
    ],
)
async def test_all_hosts_are_those_of_the_public_internet(told: Told, target: str) -> None:
    """Not this machine, its network, or its cloud's metadata, in whatever way they are written."""
    async with way_out(told, egress_hosts=["*"]) as slot:
        answer = await slot.told(target)
    assert answer.startswith("HTTP/1.1 403")
    assert "not on the public internet" in answer
    assert [action for action, _ in told.events] == ["egress.refused"]


async def test_a_name_of_a_private_address_is_refused(
    told: Told, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where another of its addresses is public: the host is allowed, and the address is not."""
    _named(monkeypatch, inside=["10.1.2.3"], both=["8.8.8.8", "127.0.0.1"])
    async with way_out(told, egress_hosts=["*.example"]) as slot:
        for name in ("inside.example", "both.example"):
            assert "403" in (await slot.told(f"{name}:443")).splitlines()[0]
        assert "502" in (await slot.told("unknown.example:443")).splitlines()[0]
    assert [action for action, _ in told.events] == ["egress.refused"] * 2


def test_this_machines_addresses_are_known() -> None:
    """Whichever they are; those that lead away from it are others'."""
    assert is_own("127.0.0.1")
    assert is_own("::1")
    assert is_own(socket.gethostbyname(socket.gethostname()))
    assert not is_own("192.0.2.1")
    assert not is_own("2001:db8::1")


async def test_a_public_address_of_this_machine_is_refused(
    told: Told, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From here its ports are open that nobody else can reach."""
    _named(monkeypatch, ours=["8.8.8.8"])
    monkeypatch.setattr("warmline_service.addresses.is_own", lambda address: address == "8.8.8.8")
    async with way_out(told, egress_hosts=["*"]) as slot:
        answer = await slot.told("ours.example:443")
    assert "its address is this machine's" in answer


async def test_other_ports_are_refused(told: Told, upstream: Upstream) -> None:
    """443 is what there is by itself."""
    settings = reaching(upstream) | {"egress_ports": [443]}
    async with way_out(told, **settings) as slot:
        answer = await slot.told(f"127.0.0.1:{upstream.port}")
    assert f"policy allows no connections to {upstream.port}" in answer


async def test_each_tenant_has_its_own_list(told: Told, upstream: Upstream) -> None:
    """In place of the service's; a change holds from the next connection on."""
    target = f"127.0.0.1:{upstream.port}"
    told.policies["none"] = TenantPolicy(egress_hosts=frozenset())
    for access, status in (Access("acme", "1"), "200"), (Access("none", "2"), "403"):
        async with way_out(told, access, **reaching(upstream)) as slot:
            reader, _ = await slot.ask(target)
            assert (await reader.readline()).split()[1] == status.encode()
            told.policies[access.tenant] = TenantPolicy(egress_hosts=frozenset({"127.0.0.1"}))
            await slot.opened(target)


async def test_nothing_is_let_through_for_nobody(told: Told, upstream: Upstream) -> None:
    """A process that no session has yet reaches nothing; nor does anyone without a list."""
    async with way_out(told, None, **reaching(upstream)) as slot:
        assert "403" in await slot.told(f"127.0.0.1:{upstream.port}")
    async with way_out(told) as slot:
        assert "403" in await slot.told("example.com:443")
    assert [detail["host"] for _, detail in told.events] == ["example.com"]


async def test_policies_that_cannot_be_read_let_nothing_through(upstream: Upstream) -> None:
    """Who is to decide is not there: that is no yes."""

    class Away(Told):
        async def of(self, tenant: str) -> TenantPolicy:
            raise WarmlineError(Reason.STORAGE_UNAVAILABLE, f"Nobody knows {tenant}.")

    async with way_out(Away(), **reaching(upstream)) as slot:
        assert "503" in (await slot.told(f"127.0.0.1:{upstream.port}")).splitlines()[0]


@pytest.mark.parametrize(
    ("request_head", "status"),
    [
        (b"GET http://example.com/ HTTP/1.1\r\nHost: example.com\r\n\r\n", 405),
        (b"POST http://example.com/ HTTP/1.0\r\nContent-Length: 3\r\n\r\nabc", 405),
        (b"GET / HTTP/1.1\r\n\r\n", 405),
        (b"CONNECT example.com HTTP/1.1\r\n\r\n", 400),
        (b"CONNECT example.com:0 HTTP/1.1\r\n\r\n", 400),
        (b"CONNECT example.com:65536 HTTP/1.1\r\n\r\n", 400),
        (b"CONNECT http://example.com:443 HTTP/1.1\r\n\r\n", 400),
        (b"CONNECT user@example.com:443 HTTP/1.1\r\n\r\n", 400),
        (b"CONNECT ex%61mple.com:443 HTTP/1.1\r\n\r\n", 400),
        (b"CONNECT \xff.example:443 HTTP/1.1\r\n\r\n", 400),
        (b"CONNECT example.com:443 HTTP/2\r\n\r\n", 400),
        (b"\x16\x03\x01\r\n\r\n", 400),
        (b"\r\n\r\n", 400),
    ],
)
async def test_nothing_else_is_served(told: Told, request_head: bytes, status: int) -> None:
    """Plain http is told to use https; what is no request is told so."""
    async with way_out(told, egress_hosts=["*"]) as slot:
        answer = await slot.told(request_head)
    assert answer.startswith(f"HTTP/1.1 {status} ")
    assert ("https" in answer and "Allow: CONNECT" in answer) == (status == 405)
    assert not told.events


@given(
    st.binary(max_size=300)
    | st.from_regex(rb"CONNECT [^\r\n]{1,80} HTTP/1\.1\r\n\r\n", fullmatch=True)
)
@example(b"CONNECT [::1]:443 HTTP/1.1\r\n\r\n")
def test_any_head_is_a_target_or_is_turned_away(head: bytes) -> None:
    """Whatever is in it; a target is a host of plain letters and a port that there is."""
    try:
        target = parse_target(head)
    except Turned as error:
        target, status = None, error.status
    if target is None:
        assert status in {400, 405}
        return
    assert target.host.isascii()
    assert target.host == target.host.lower()
    assert 0 < target.port < 65536


async def test_a_head_that_is_too_long_is_refused(told: Told) -> None:
    """It is not kept until it ends."""
    async with way_out(told) as slot:
        answer = await slot.told(b"CONNECT a:443 HTTP/1.1\r\nX: " + b"x" * 4 * BUFFER)
    assert answer.startswith("HTTP/1.1 431")


async def test_a_head_that_does_not_come_is_not_waited_for(told: Told) -> None:
    """Nor does its connection stay open; one that ends before is nobody's mistake."""
    async with way_out(told, bounds=Bounds(head=0.2)) as slot:
        assert (await slot.told(b"CONNECT a:443 HT")).startswith("HTTP/1.1 408")
        _, writer = await slot.connect()
        writer.write(b"CONN")
        writer.close()


async def test_so_many_connections_and_no_more(told: Told, upstream: Upstream) -> None:
    """One that says nothing counts as well; when one has ended there is room."""
    target = f"127.0.0.1:{upstream.port}"
    async with way_out(told, bounds=Bounds(tunnels=2), **reaching(upstream)) as slot:
        await slot.connect()
        _, writer = await slot.opened(target)
        assert (await slot.told(target)).startswith("HTTP/1.1 503")
        writer.close()
        await upstream.ended.acquire()
        async with asyncio.timeout(30):
            while (await (await slot.ask(target))[0].readline()).split()[1] != b"200":
                pass


async def test_a_tenant_has_so_many_in_all(
    told: Told, upstream: Upstream, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Over all its processes; another one's are not counted with them."""
    monkeypatch.setattr("warmline_service.egress._outlet._TUNNELS", 1)
    target = f"127.0.0.1:{upstream.port}"
    async with way_out(told, **reaching(upstream)) as slot:
        outlet = slot.way._outlet
        await slot.opened(target)
        assert "connections of one tenant" in await slot.told(target)
        with outlet.place(Access("other", "session")):
            assert dict(outlet._running) == {"acme": 1, "other": 1}
    assert not outlet._running


async def test_a_host_that_does_not_answer_is_given_up(
    told: Told, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In time for who asks; one that refuses is told of at once, without its address."""
    release = threading.Event()
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    settings: dict[str, Any] = {"egress_networks": ["127.0.0.0/8"], "egress_ports": [port]}
    settings["egress_hosts"] = ["*"]
    async with way_out(told, bounds=Bounds(connect=0.2), **settings) as slot:
        assert (await slot.told(f"127.0.0.1:{port}")).startswith("HTTP/1.1 502")
        monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: release.wait(30) and [])
        try:
            assert (await slot.told(f"slow.example:{port}")).startswith("HTTP/1.1 504")
        finally:
            release.set()


async def test_who_never_reads_is_not_read_for(told: Told, upstream: Upstream) -> None:
    """What is kept for it is bounded, and after a while without a byte the tunnel ends."""
    upstream.floods = True
    async with way_out(told, bounds=Bounds(idle=1.0), **reaching(upstream)) as slot:
        await slot.opened(f"127.0.0.1:{upstream.port}")
        await asyncio.wait_for(upstream.ended.acquire(), 30)
        async with asyncio.timeout(30):
            while slot.way._tasks:
                await asyncio.wait(slot.way._tasks)
    # What the kernel keeps on its way, and little of ours.
    assert upstream.sent < 32 * 1024 * 1024


async def test_silence_ends_a_tunnel_and_words_do_not(told: Told, upstream: Upstream) -> None:
    """As long as one of both says something it goes on."""
    async with way_out(told, bounds=Bounds(idle=1.5), **reaching(upstream)) as slot:
        reader, writer = await slot.opened(f"127.0.0.1:{upstream.port}")
        begun = asyncio.get_running_loop().time()
        while asyncio.get_running_loop().time() < begun + 2.0:
            writer.write(b"a")
            assert await reader.readexactly(1) == b"A"
        assert await reader.read() == b""
        await upstream.ended.acquire()


async def test_all_ends_with_the_way(told: Told, upstream: Upstream) -> None:
    """Tunnels, heads that are awaited, and the port; no task is left."""
    async with way_out(told, **reaching(upstream)) as slot:
        reader, _ = await slot.opened(f"127.0.0.1:{upstream.port}")
        waiting, _ = await slot.connect()
        await slot.way.aclose()
        await slot.way.aclose()
        await asyncio.wait_for(upstream.ended.acquire(), 30)
        for each in reader, waiting:
            with contextlib.suppress(ConnectionError):
                assert await asyncio.wait_for(each.read(1), 30) == b""
        with pytest.raises(ConnectionError):
            await slot.connect()
        assert not slot.way._tasks


async def test_a_way_ends_with_its_slots_endpoint(
    told: Told, upstream: Upstream, egress: Egress, slot: Slot
) -> None:
    """And there is none for a slot whose endpoint is closed; its socket is closed in any case."""
    outlet = Outlet(SandboxSettings(**reaching(upstream)), told, told)
    egress._outlet = outlet
    endpoint = await egress.open_endpoint(slot)
    listener = socket.create_server(("127.0.0.1", 0))
    await egress.open_way(slot, listener)
    egress.bind(slot.id, ACCESS)
    reader, writer = await asyncio.open_connection(*listener.getsockname())
    writer.write(f"CONNECT 127.0.0.1:{upstream.port} HTTP/1.1\r\n\r\n".encode())
    assert (await reader.readline()).split()[1] == b"200"
    await endpoint.aclose()
    await asyncio.wait_for(upstream.ended.acquire(), 30)
    writer.close()
    late = socket.create_server(("127.0.0.1", 0))
    with pytest.raises(ConnectionAbortedError):
        await egress.open_way(slot, late)
    assert late.fileno() == listener.fileno() == -1


async def test_a_way_that_is_closed_while_it_opens_stays_closed(
    told: Told, upstream: Upstream
) -> None:
    """Nothing goes on to listen that nobody owns."""
    outlet = Outlet(SandboxSettings(**reaching(upstream)), told, told)
    way = Way(Account("s1"), socket.create_server(("127.0.0.1", 0)), outlet)
    opening = asyncio.create_task(way.start())
    await asyncio.sleep(0)
    await way.aclose()
    with pytest.raises(OSError, match="closed"):
        await opening
    outlet.close()


async def test_what_the_log_is_spared_is_bounded(told: Told, upstream: Upstream) -> None:
    """A session that connects to ever new hosts is not remembered without end."""
    async with way_out(told, **reaching(upstream)) as slot:
        outlet: Outlet = slot.way._outlet
        known = {Target(str(number), 443) for number in range(_KNOWN)}
        assert slot.account.access is not None
        for _ in range(2):
            outlet._allowed(slot.account.access, Target("one.more", 443), known)
        outlet._allowed(slot.account.access, Target("1", 443), known)
    assert len(known) == _KNOWN
    assert [detail["host"] for _, detail in told.events] == ["one.more"] * 2
