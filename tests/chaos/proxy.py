"""A relay of connections that can be cut, stalled, cut in the middle of a message, or lose an answer."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
from asyncio import StreamReader, StreamWriter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

Connect = Callable[[], Awaitable[tuple[StreamReader, StreamWriter]]]

_CHUNK = 64 * 1024
_RESET = struct.pack("ii", 1, 0)


class _Link:
    """One connection on both sides; ends as a whole."""

    def __init__(self, near: StreamWriter, far: StreamWriter) -> None:
        self.flowing = asyncio.Event()
        self.flowing.set()
        # How many bytes of answers still pass; None: any number.
        self.left: int | None = None
        # The next answer is lost, and the connection with it.
        self.deaf = False
        self.cut = asyncio.Event()
        self._near = near
        self._far = far

    async def run(self, near: StreamReader, far: StreamReader) -> None:
        """Relay until either side ends, or it is cut."""
        tasks = {
            asyncio.create_task(self._up(near)),
            asyncio.create_task(self._down(far)),
            asyncio.create_task(self.cut.wait()),
        }
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        finally:
            self.close()
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    def close(self) -> None:
        """Reset both sides."""
        for writer in (self._near, self._far):
            sock = writer.get_extra_info("socket")
            if sock.family != socket.AF_UNIX:
                with contextlib.suppress(OSError):  # It has ended already.
                    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
            writer.transport.abort()

    async def _up(self, reader: StreamReader) -> None:
        with contextlib.suppress(ConnectionError):
            while data := await reader.read(_CHUNK):
                await self.flowing.wait()
                self._far.write(data)
                await self._far.drain()

    async def _down(self, reader: StreamReader) -> None:
        with contextlib.suppress(ConnectionError):
            while data := await reader.read(_CHUNK):
                await self.flowing.wait()
                if self.deaf:
                    return
                if self.left is not None:
                    data, self.left = data[: self.left], self.left - len(data)
                self._near.write(data)
                await self._near.drain()
                if self.left is not None and self.left <= 0:
                    return


class FaultProxy:
    """Relays every connection to where `connect` leads."""

    def __init__(self, connect: Connect) -> None:
        self.address = ""
        self._connect = connect
        self._links: set[_Link] = set()
        self._tasks: set[asyncio.Task[None]] = set()

    def reset(self) -> int:
        """Cut every connection; gives how many there were."""
        for link in self._links:
            link.cut.set()
        return len(self._links)

    async def stall(self, seconds: float) -> int:
        """Let nothing through for a time, then cut what was open."""
        links = set(self._links)
        for link in links:
            link.flowing.clear()
        await asyncio.sleep(seconds)
        for link in links:
            link.cut.set()
        return len(links)

    def cut_after(self, size: int) -> int:
        """Cut each connection when so many more bytes of answers have passed."""
        for link in self._links:
            link.left = size
        return len(self._links)

    def lose_answer(self) -> int:
        """Cut each connection in place of its next answer: what was asked is done all the same."""
        for link in self._links:
            link.deaf = True
        return len(self._links)

    async def accept(self, reader: StreamReader, writer: StreamWriter) -> None:
        """Serve one connection."""
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        try:
            far_reader, far_writer = await self._connect()
        except OSError:
            writer.transport.abort()
            return
        link = _Link(writer, far_writer)
        self._links.add(link)
        try:
            await link.run(reader, far_reader)
        finally:
            self._links.discard(link)

    async def aclose(self) -> None:
        """Cut everything and wait for it."""
        self.reset()
        tasks = set(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


@asynccontextmanager
async def tcp_proxy(port: int) -> AsyncIterator[FaultProxy]:
    """A proxy of its own address in front of a port of this machine."""
    proxy = FaultProxy(lambda: asyncio.open_connection("127.0.0.1", port))
    server = await asyncio.start_server(proxy.accept, "127.0.0.1", 0)
    proxy.address = f"127.0.0.1:{server.sockets[0].getsockname()[1]}"
    try:
        yield proxy
    finally:
        server.close()
        await proxy.aclose()


@asynccontextmanager
async def unix_proxy(near: Path, far: Path) -> AsyncIterator[FaultProxy]:
    """A proxy at a path in front of the socket at another."""
    proxy = FaultProxy(lambda: asyncio.open_unix_connection(str(far)))
    server = await asyncio.start_unix_server(proxy.accept, str(near))
    try:
        yield proxy
    finally:
        server.close()
        await proxy.aclose()
        near.unlink()
