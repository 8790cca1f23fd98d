"""Connections to real MCP servers: shared, kept up, given up."""

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any, Literal

import pytest
from mcp_servers import REACHABLE, TOKEN, Running, mcp_server
from warmline_service.addresses import AddressRefused, Resolver
from warmline_service.config import McpSettings
from warmline_service.errors import Reason, WarmlineError
from warmline_service.mcp import (
    MOST_CALLS,
    Broker,
    Connection,
    Lease,
    Refused,
    State,
    Target,
    Unreachable,
)

_ADD = {"name": "add", "arguments": {"a": 1, "b": 2}}
_HEADERS = {"authorization": f"Bearer {TOKEN}"}

Make = Callable[..., Broker]


@pytest.fixture
async def broker() -> AsyncIterator[Make]:
    """Makes a broker that may reach this machine."""
    made: list[Broker] = []

    def make(**settings: Any) -> Broker:
        made.append(Broker(McpSettings(**(REACHABLE | settings))))
        return made[-1]

    yield make
    for each in made:
        await each.aclose()


class Watched:
    """A lease, and its changes."""

    def __init__(self, broker: Broker, target: Target, tenant: str = "t") -> None:
        self._changed = asyncio.Event()
        self.lease: Lease = broker.lease(tenant, target, self._changed.set)

    async def until(self, state: State) -> None:
        """Wait for a state."""
        async with asyncio.timeout(90):
            while self.lease.state.state is not state:
                self._changed.clear()
                await self._changed.wait()

    async def call(self, method: str = "tools/call", **params: Any) -> dict[str, Any]:
        """Ask for something, by default the sum."""
        return await self.lease.connection.request(method, params or _ADD)


def _target(running: Running, token: str = TOKEN) -> Target:
    return Target(running.kind, running.url, {"authorization": f"Bearer {token}"})


@pytest.mark.parametrize("kind", ["http", "sse"])
async def test_a_server_is_asked(broker: Make, kind: Literal["http", "sse"]) -> None:
    """For its tools and what they give, for resources, and for what it has not."""
    async with mcp_server(kind) as server:
        watched = Watched(broker(), _target(server))
        await watched.until(State.CONNECTED)
        state = watched.lease.state
        assert state.tool_names == ("add", "fail", "flood", "hang", "grow")
        assert state.instructions == "Add with this."
        assert set(state.capabilities) == {"resources", "prompts"}
        assert (await watched.call())["content"] == [{"type": "text", "text": "3"}]
        assert (await watched.call(name="fail", arguments={}))["isError"]
        found = await watched.call("resources/read", uri="note://one")
        assert found["contents"][0]["text"] == "a note"
        with pytest.raises(Refused, match="there is no sampling/createMessage here"):
            await watched.call("sampling/createMessage")
        with pytest.raises(Unreachable, match="not MCP"):
            await watched.call(nothing="that is known")


@pytest.mark.parametrize("kind", ["http", "sse"])
async def test_a_lost_server_is_connected_again(broker: Make, kind: Literal["http", "sse"]) -> None:
    """Calls fail while it is gone, and its tools are remembered."""
    async with mcp_server(kind) as server:
        watched = Watched(broker(), _target(server))
        await watched.until(State.CONNECTED)
        await server.stop()
        await watched.until(State.FAILED)
        # It depends on the moment what is noticed first.
        gone = ("it cannot be reached", "it has hung up, or does not speak MCP as it should")
        assert watched.lease.state.error in gone
        assert "add" in watched.lease.state.tool_names
        with pytest.raises(Unreachable, match=r"it cannot be reached|it has hung up"):
            await watched.call()
        await server.start()
        assert (await watched.call())["content"] == [{"type": "text", "text": "3"}]
        assert watched.lease.state.state is State.CONNECTED


@pytest.mark.parametrize("kind", ["http", "sse"])
async def test_a_call_that_is_given_up_is_cancelled_at_the_server(
    broker: Make, kind: Literal["http", "sse"]
) -> None:
    """It would run on for nobody."""
    async with mcp_server(kind) as server:
        watched = Watched(broker(), _target(server))
        await watched.until(State.CONNECTED)
        call = asyncio.create_task(watched.call(name="hang", arguments={}))
        await asyncio.wait_for(server.entered.wait(), 60)
        call.cancel()
        await asyncio.wait_for(server.cancelled.wait(), 60)


async def test_a_call_has_a_bound(broker: Make) -> None:
    """The connection outlives it."""
    async with mcp_server() as server:
        watched = Watched(broker(call_timeout=0.5), _target(server))
        await watched.until(State.CONNECTED)
        with pytest.raises(Unreachable, match=r"did not answer within 0\.5 s"):
            await watched.call(name="hang", arguments={})
        assert (await watched.call())["content"]


async def test_sessions_of_a_tenant_share_a_connection(broker: Make) -> None:
    """By address and headers; another tenant has its own, whatever it gives."""
    async with mcp_server() as server:
        lender = broker()
        first, second = Watched(lender, _target(server)), Watched(lender, _target(server))
        other = Watched(lender, _target(server), "another")
        wrong = Watched(lender, _target(server, "wrong"))
        connections = {each.lease.connection for each in (first, second, other, wrong)}
        assert first.lease.connection is second.lease.connection
        assert len(connections) == 3
        await second.until(State.CONNECTED)
        await wrong.until(State.FAILED)
        assert wrong.lease.state.error == "it does not accept the headers (HTTP 401)"
        # One that goes leaves the other its connection.
        first.lease.release()
        assert (await second.call())["content"]


async def test_an_unused_connection_is_kept_for_a_while(broker: Make) -> None:
    """For the next session; then it is closed, and that one connects anew."""
    async with mcp_server() as server:
        lender = broker(idle_ttl=0.2)
        first = Watched(lender, _target(server))
        await first.until(State.CONNECTED)
        connection = first.lease.connection
        first.lease.release()
        second = Watched(lender, _target(server))
        assert second.lease.connection is connection
        second.lease.release()
        await asyncio.wait_for(connection.closed.wait(), 60)
        third = Watched(lender, _target(server))
        assert third.lease.connection is not connection


async def test_a_tenants_connections_are_counted(broker: Make) -> None:
    """An unused one makes room; another tenant's are no business of its."""
    lender = broker(connections_per_tenant=2)

    def lease(number: int, tenant: str = "t") -> Lease:
        target = Target("http", f"http://127.0.0.1:9/{number}")
        return lender.lease(tenant, target, lambda: None)

    first, _ = lease(1), lease(2)
    with pytest.raises(WarmlineError) as refused:
        lease(3)
    assert refused.value.reason is Reason.QUOTA_EXCEEDED
    lease(3, "another")
    first.release()
    lease(3)


@pytest.mark.parametrize(
    ("url", "why"),
    [
        ("http://127.0.0.1:1/", "it cannot be reached"),
        ("http://10.9.9.9/", "its address is not on the public internet"),
        ("http://no-such-host.invalid/", "its host is not known"),
    ],
)
async def test_a_server_that_cannot_be_had_says_why(broker: Make, url: str, why: str) -> None:
    """In a sentence without its address."""
    watched = Watched(broker(), Target("http", url, _HEADERS))
    await watched.until(State.FAILED)
    assert watched.lease.state.error == why


async def test_nothing_tells_an_address_or_a_header() -> None:
    """Neither may be in a log by way of a repr."""
    target = Target("http", "https://host.example/?key=s3cret", _HEADERS)
    assert "s3cret" not in repr(target)
    assert TOKEN not in repr(target)


async def test_many_calls_are_made_at_once(broker: Make) -> None:
    """As many as there may be; one more is refused, and the connection is none the worse for it."""
    async with mcp_server() as server:
        watched = Watched(broker(), _target(server))
        await watched.until(State.CONNECTED)
        calls = [
            asyncio.create_task(watched.call(name="hang", arguments={})) for _ in range(MOST_CALLS)
        ]
        try:
            async with asyncio.timeout(90):
                while server.hanging < MOST_CALLS:
                    await asyncio.sleep(0.02)
            with pytest.raises(Unreachable, match="too many calls"):
                await watched.call()
        finally:
            for call in calls:
                call.cancel()
            await asyncio.wait(calls)
        assert (await watched.call())["content"] == [{"type": "text", "text": "3"}]
        assert watched.lease.state.state is State.CONNECTED


async def test_an_answer_that_is_too_long_fails_its_own_call(broker: Make) -> None:
    """Another session's goes on."""
    async with mcp_server() as server:
        watched = Watched(broker(message_bytes=256 * 1024), _target(server))
        await watched.until(State.CONNECTED)
        other = asyncio.create_task(watched.call(name="hang", arguments={}))
        await asyncio.wait_for(server.entered.wait(), 60)
        with pytest.raises((Refused, Unreachable)):
            await watched.call(name="flood", arguments={})
        assert not other.done()
        assert watched.lease.state.state is State.CONNECTED
        other.cancel()


async def test_nothing_is_kept_of_what_nobody_uses(broker: Make) -> None:
    """Least of all its headers."""
    lender = broker(idle_ttl=0.01)
    for number in range(20):
        target = Target("http", "http://127.0.0.1:9/", {"authorization": f"Bearer {number}"})
        lease = lender.lease("t", target, lambda: None)
        lease.release()
        await asyncio.wait_for(lease.connection.closed.wait(), 60)
    assert not lender.connections


async def test_a_host_is_looked_up_as_it_is_sent() -> None:
    """In another form of its name it may be another's."""
    asked: list[str] = []

    class Asked(Resolver):
        async def resolve(self, owner: str, host: str, port: int, timeout: float) -> str:
            asked.append(host)
            raise AddressRefused("its host is not known")

    resolver, changed = Asked(), asyncio.Event()
    target = Target("http", "https://xn--fa-hia.de/mcp")
    connection = Connection(target, "t", McpSettings(), resolver)
    connection.watchers.add(changed.set)
    await asyncio.wait_for(changed.wait(), 60)
    await connection.aclose()
    resolver.close()
    assert set(asked) == {"xn--fa-hia.de"}
