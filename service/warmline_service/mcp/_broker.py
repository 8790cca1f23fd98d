"""The connections of all tenants: one for each server, shared by the sessions that name it alike."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from hashlib import blake2b

import msgspec

from warmline_service.addresses import Resolver
from warmline_service.config import McpSettings
from warmline_service.errors import Reason, WarmlineError
from warmline_service.mcp._connection import Connection
from warmline_service.mcp._state import ServerState, Target

_Key = tuple[str, bytes]


class Lease:
    """A session's use of a connection; `on_change` is called whenever the server's state is another."""

    def __init__(
        self, connection: Connection, on_change: Callable[[], None], back: Callable[[], None]
    ) -> None:
        # One of this session's alone: two may give the same function.
        self._watcher: Callable[[], None] = lambda: on_change()
        self._back: Callable[[], None] | None = back
        self.connection = connection
        connection.watchers.add(self._watcher)

    @property
    def state(self) -> ServerState:
        """How the server is."""
        return self.connection.state

    def release(self) -> None:
        """Have no more use for it. Idempotent."""
        self.connection.watchers.discard(self._watcher)
        if self._back is not None:
            self._back()
            self._back = None


class Broker:
    """Lends connections; one that nobody has is kept for a while, since the next session may want it."""

    def __init__(self, settings: McpSettings) -> None:
        self._settings = settings
        self._resolver = Resolver(settings.allow_networks)
        self._secret = os.urandom(32)
        self._connections: dict[_Key, Connection] = {}
        self._users: dict[_Key, int] = {}
        self._timers: dict[_Key, asyncio.TimerHandle] = {}
        self._closing: set[asyncio.Task[None]] = set()

    def lease(self, tenant: str, target: Target, on_change: Callable[[], None]) -> Lease:
        """A connection to a server, perhaps one that is up already. Raises QUOTA_EXCEEDED."""
        # Not the headers themselves, which would be here for longer than they are needed.
        text = msgspec.json.encode(target.identity)
        key = tenant, blake2b(text, key=self._secret, digest_size=32).digest()
        connection = self._connections.get(key)
        if connection is None:
            self._check(tenant)
            connection = self._connections[key] = Connection(
                target, tenant, self._settings, self._resolver
            )
        if (timer := self._timers.pop(key, None)) is not None:
            timer.cancel()
        self._users[key] = self._users.get(key, 0) + 1
        return Lease(connection, on_change, lambda: self._give_back(key))

    @property
    def connections(self) -> int:
        """How many there are, or are counted as somebody's."""
        return len(self._connections.keys() | self._users.keys())

    async def aclose(self) -> None:
        """Hang up everywhere."""
        for timer in self._timers.values():
            timer.cancel()
        self._timers.clear()
        for key in list(self._connections):
            self._close(key)
        while self._closing:
            await asyncio.wait(self._closing)
        self._resolver.close()

    def _check(self, tenant: str) -> None:
        most = self._settings.connections_per_tenant
        own = [key for key in self._connections if key[0] == tenant]
        if len(own) < most:
            return
        idle = next((key for key in own if not self._users.get(key)), None)
        if idle is None:
            text = f"The tenant has {most} connections to MCP servers already."
            quota = {"quota": "mcp.connections_per_tenant"}
            raise WarmlineError(Reason.QUOTA_EXCEEDED, text, metadata=quota)
        self._close(idle)

    def _give_back(self, key: _Key) -> None:
        self._users[key] -= 1
        if self._users[key]:
            return
        del self._users[key]
        if key in self._connections:
            later = asyncio.get_running_loop().call_later
            self._timers[key] = later(self._settings.idle_ttl, self._close, key)

    def _close(self, key: _Key) -> None:
        if (timer := self._timers.pop(key, None)) is not None:
            timer.cancel()
        task = asyncio.create_task(self._connections.pop(key).aclose())
        self._closing.add(task)
        task.add_done_callback(self._closing.discard)
