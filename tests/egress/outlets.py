"""A way to the network for a test, and who stands at its other end."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from warmline_service.config import SandboxSettings, TenantPolicy
from warmline_service.egress import Access, Bounds, Outlet, Way
from warmline_service.egress._account import Account
from warmline_service.egress._outlet import Streams

ACCESS = Access("acme", "session")
_TIMEOUT = 30.0


@dataclass
class Told:
    """The policies of tenants, and what the audit log is told."""

    policies: dict[str, TenantPolicy] = field(default_factory=dict)
    events: list[tuple[str, Mapping[str, Any]]] = field(default_factory=list)

    async def of(self, tenant: str) -> TenantPolicy:
        """What holds for a tenant."""
        return self.policies.get(tenant, TenantPolicy())

    def record_counted(
        self, action: str, kind: tuple[str, ...], detail: Mapping[str, Any], **fields: str
    ) -> None:
        """Note it."""
        assert kind == (fields["tenant"], fields["session_id"])
        self.events.append((action, detail))


class Upstream:
    """Says back what it hears, in capitals; `accepted` are its connections, `ended` counts those over."""

    def __init__(self) -> None:
        self.accepted = asyncio.Semaphore(0)
        self.ended = asyncio.Semaphore(0)
        self.floods = False
        self.sent = 0
        self.port = 0

    @asynccontextmanager
    async def running(self) -> AsyncIterator[Upstream]:
        """It listens, on this machine."""
        async with await asyncio.start_server(self._serve, "127.0.0.1", 0) as server:
            self.port = server.sockets[0].getsockname()[1]
            yield self

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.accepted.release()
        try:
            while piece := b"x" * 65536 if self.floods else await reader.read(65536):
                writer.write(piece.upper())
                await writer.drain()
                self.sent += len(piece)
        except ConnectionError:
            pass  # Cut off, as some tests want it.
        finally:
            writer.close()
            self.ended.release()


class Slot:
    """A way and its slot's account; `ask` is what a process of it does."""

    def __init__(self, way: Way, account: Account, port: int) -> None:
        self.way = way
        self.account = account
        self._port = port
        self._open: list[asyncio.StreamWriter] = []

    async def connect(self) -> Streams:
        """A connection to the way, of which nothing is said yet."""
        streams = await asyncio.open_connection("127.0.0.1", self._port)
        self._open.append(streams[1])
        return streams

    async def ask(self, target: str) -> Streams:
        """Ask for a host and a port."""
        reader, writer = await self.connect()
        writer.write(f"CONNECT {target} HTTP/1.1\r\nHost: {target}\r\n\r\n".encode())
        return reader, writer

    async def opened(self, target: str) -> Streams:
        """A connection to a host, through the way."""
        reader, writer = await self.ask(target)
        said = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), _TIMEOUT)
        assert said == b"HTTP/1.1 200 Connection established\r\n\r\n"
        return reader, writer

    async def told(self, request: str | bytes) -> str:
        """The whole answer to a request, or to what is asked for by CONNECT; the connection ends with it."""
        if isinstance(request, str):
            reader, _ = await self.ask(request)
        else:
            reader, writer = await self.connect()
            writer.write(request)
        return (await asyncio.wait_for(reader.read(), _TIMEOUT)).decode()

    async def aclose(self) -> None:
        """End the way and the process."""
        await self.way.aclose()
        for writer in self._open:
            writer.transport.abort()


@asynccontextmanager
async def way_out(
    told: Told, access: Access | None = ACCESS, bounds: Bounds | None = None, **sandbox: Any
) -> AsyncIterator[Slot]:
    """A way of a slot that a session has, by settings of the sandbox."""
    outlet = Outlet(SandboxSettings(**sandbox), told, told)
    account = Account("s1")
    if access is not None:
        account.bind(access)
    listener = socket.create_server(("127.0.0.1", 0))
    way = Way(account, listener, outlet, bounds)
    await way.start()
    slot = Slot(way, account, listener.getsockname()[1])
    try:
        yield slot
    finally:
        await slot.aclose()
        outlet.close()


def reaching(upstream: Upstream, *hosts: str) -> dict[str, Any]:
    """The settings by which these hosts are let through, at this machine and the upstream's port."""
    return {
        "egress_hosts": hosts or ("127.0.0.1",),
        "egress_networks": ["127.0.0.0/8"],
        "egress_ports": [upstream.port],
    }
