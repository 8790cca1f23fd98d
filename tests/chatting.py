"""What a browser does with a chat: event streams, frames on a WebSocket, a network that drops."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import httpx
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosedError

STREAM = "/v1/chat/stream"


@dataclass(frozen=True)
class Told:
    """One server-sent event."""

    kind: str
    id: str
    data: dict[str, Any]

    @property
    def body(self) -> dict[str, Any]:
        """What is said under the event's own name."""
        first, *rest = self.kind.split("_")
        body: dict[str, Any] = self.data[first + "".join(word.capitalize() for word in rest)]
        return body


def parsed(text: str) -> Told | None:
    """An event, without the empty line at its end; None for a comment."""
    fields = dict(
        line.split(": ", 1) for line in text.splitlines() if line and not line.startswith(":")
    )
    if not fields:
        return None
    return Told(fields["event"], fields.get("id", ""), json.loads(fields["data"]))


async def events_of(response: httpx.Response) -> AsyncGenerator[Told, None]:
    """The events of a response that is being read."""
    rest = ""
    async for piece in response.aiter_text():
        *whole, rest = (rest + piece).split("\n\n")
        for text in whole:
            event = parsed(text)
            if event is not None:
                yield event


async def say(http: httpx.AsyncClient, message: str, **more: Any) -> list[Told]:
    """Say something and read all that is told."""
    return await read(http, "POST", json={"message": message, **more})


async def read(http: httpx.AsyncClient, method: str, **request: Any) -> list[Told]:
    """A whole stream."""
    async with http.stream(method, STREAM, **request) as response:
        assert response.status_code == 200, await response.aread()
        return [event async for event in events_of(response)]


async def until(http: httpx.AsyncClient, method: str, count: int, **request: Any) -> list[Told]:
    """So many events with an id, then the connection is cut."""
    found: list[Told] = []
    async with http.stream(method, STREAM, **request) as response:
        async with contextlib.aclosing(events_of(response)) as events:
            async for event in events:
                found.append(event)
                if sum(bool(each.id) for each in found) == count:
                    return found
    raise AssertionError(f"only {[event.kind for event in found]}")


def kinds(events: Sequence[Told]) -> list[str]:
    """What kind each event is."""
    return [event.kind for event in events]


def text_of(events: Sequence[Told]) -> str:
    """The answer's text, from its deltas."""
    return "".join(event.body["text"] for event in events if event.kind == "text_delta")


@dataclass
class Socket:
    """A WebSocket: frames out, events in; `error` is what it was told at its end."""

    wire: ClientConnection
    seen: list[dict[str, Any]] = field(default_factory=list)
    error: dict[str, Any] = field(default_factory=dict)

    async def send(self, **frame: Any) -> None:
        """Send a frame."""
        await self.wire.send(json.dumps(frame))

    async def until(self, name: str) -> Any:
        """Read up to an event of a kind; gives what it says."""
        start = len(self.seen)
        while True:
            for event in self.seen[start:]:
                if name in event:
                    return event[name]
            start = len(self.seen)
            await self._more()

    async def ended(self) -> tuple[int | None, str | None]:
        """Read to the end; gives the close frame's code and reason."""
        with contextlib.suppress(ConnectionClosedError):
            async with asyncio.timeout(90):
                async for text in self.wire:
                    self._take(json.loads(text))
        await self.wire.wait_closed()
        return self.wire.close_code, self.wire.close_reason

    async def _more(self) -> None:
        async with asyncio.timeout(90):
            self._take(json.loads(await self.wire.recv()))

    def _take(self, frame: dict[str, Any]) -> None:
        self.seen += frame.get("events", [])
        self.error = frame.get("error", self.error)


@asynccontextmanager
async def socket_to(url: str, query: str = "", **options: Any) -> AsyncIterator[Socket]:
    """A WebSocket to the shim at an address."""
    address = f"{url.replace('http', 'ws', 1)}/v1/chat/ws{query}"
    async with connect(address, **options) as wire:
        yield Socket(wire)


class Relay:
    """A network between a page and a port, which can be cut, or silent, and mended."""

    def __init__(self, port: int) -> None:
        self._target = port
        self._tasks: set[asyncio.Task[None]] = set()
        self._writers: set[asyncio.StreamWriter] = set()
        self._down = False
        self._passing = asyncio.Event()
        self._passing.set()
        self.port = 0

    @asynccontextmanager
    async def running(self) -> AsyncIterator[Relay]:
        """Relay while the context lasts."""
        server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.port = server.sockets[0].getsockname()[1]
        try:
            yield self
        finally:
            server.close()
            self.cut()
            await asyncio.gather(*self._tasks, return_exceptions=True)
            await server.wait_closed()

    def cut(self) -> None:
        """Every connection is lost, and new ones are."""
        self._down = True
        for writer in self._writers:
            writer.transport.abort()

    def silence(self) -> None:
        """Nothing comes through any more, and nobody is told."""
        self._passing.clear()

    def mend(self) -> None:
        """New connections come through again; those that were silent are lost."""
        self.cut()
        self._passing.set()
        self._down = False

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self._down:
            writer.transport.abort()
            return
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        there, back = await asyncio.open_connection("127.0.0.1", self._target)
        ends = {writer, back}
        self._writers |= ends
        try:
            await asyncio.gather(self._pump(reader, back), self._pump(there, writer))
        finally:
            self._writers -= ends
            for each in ends:
                each.transport.abort()
            self._tasks.discard(task)

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            while data := await reader.read(65536):
                await self._passing.wait()
                writer.write(data)
                await writer.drain()
            writer.transport.abort()
