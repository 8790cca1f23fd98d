"""One slot's way to the network: a proxy on a socket that listens where its process is, and nobody else."""

from __future__ import annotations

import asyncio
import socket
from dataclasses import dataclass

import structlog

from warmline_service.egress._account import Account
from warmline_service.egress._outlet import Outlet, Streams, Target, Turned
from warmline_service.egress._tunnel import (
    BUFFER,
    ESTABLISHED,
    answer,
    part,
    read_target,
    relay,
)

_log = structlog.get_logger(__name__)

_BACKLOG = 64


@dataclass(frozen=True)
class Bounds:
    """Of one way: connections at once, and seconds for a head, to connect, and without a byte."""

    tunnels: int = 32
    head: float = 10.0
    connect: float = 10.0
    idle: float = 600.0


class Way:
    """Serves CONNECT for the session that has the slot, and for nobody before.

    Owns its listener from `start` on.
    """

    def __init__(
        self,
        account: Account,
        listener: socket.socket,
        outlet: Outlet,
        bounds: Bounds | None = None,
    ) -> None:
        self._account = account
        self._listener = listener
        self._outlet = outlet
        self._bounds = bounds or Bounds()
        self._server: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._known: set[Target] = set()
        self._closed = False

    async def start(self) -> None:
        """Begin to accept. Raises OSError, also where it is closed meanwhile."""
        try:
            server = await asyncio.start_server(
                self._accept, sock=self._listener, limit=BUFFER, backlog=_BACKLOG
            )
        except BaseException:
            self._listener.close()
            raise
        if self._closed:
            server.close()
            raise ConnectionAbortedError("the way was closed while it was opened")
        self._server = server

    async def aclose(self) -> None:
        """Refuse further connections, end those that there are. May be called twice."""
        self._closed = True
        if self._server is not None:
            self._server.close()
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks)

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self._closed:
            writer.transport.abort()
            return
        if len(self._tasks) >= self._bounds.tunnels:
            many = f"More than {self._bounds.tunnels} connections of one process at once."
            writer.write(answer(Turned(503, many)))
            writer.close()
            return
        task = asyncio.create_task(self._serve((reader, writer)), name="way out")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _serve(self, asker: Streams) -> None:
        try:
            target = await read_target(asker[0], self._bounds.head)
            if target is not None:
                await self._lead(asker, target)
        except Turned as turned:
            asker[1].write(answer(turned))
            await part(asker)
        except OSError:
            pass  # The asker has gone.
        except Exception:  # noqa: BLE001 - the edge: what is unknown goes to the log, not to the slot
            _log.exception("way_out_failed", slot=self._account.slot_id)
        finally:
            asker[1].transport.abort()

    async def _lead(self, asker: Streams, target: Target) -> None:
        access, bounds = self._account.access, self._bounds
        if access is None:
            raise Turned(403, "No session has this process yet.")
        with self._outlet.place(access):
            other = await self._outlet.connect(access, target, self._known, bounds.connect, BUFFER)
            try:
                asker[1].write(ESTABLISHED)
                await relay(asker, other, bounds.idle)
                await asyncio.gather(part(asker), part(other))
            except* OSError:
                pass  # One of them has gone, or both are silent: that ends it for both.
            finally:
                other[1].transport.abort()
