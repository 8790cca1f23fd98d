"""A thousand streams over HTTP whose turns wait: what they cost, and whether they hear of it."""

from __future__ import annotations

import asyncio
import resource
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import aiohttp
from warmline_client import Client, connect

from bench.children import service, shim
from bench.figures import Finding, Goal, Report
from bench.http_site import MODEL
from bench.plan import Plan
from bench.procfs import cpu_seconds, rest, rss_bytes
from bench.sse import begin, http_client

PART = "HTTP: 1,000 idle streams"
_STREAMS = 1000
# Streams that are opened at once.
_TOGETHER = 50
_HEARTBEAT = 20
_TIMEOUT = 120.0
_BEAT = b"event: ping"
_BODY = {
    "model": MODEL,
    "max_tokens": 1024,
    "stream": True,
    "messages": [{"role": "user", "content": "hello"}],
}
# Longer than all of it takes.
_BUSY = "!deltas 2 600000"
_WAITING: dict[str, object] = {
    "pool__warm_up": False,
    "pool__max_processes": 1,
    "pool__min_spares": 0,
    "pool__max_spares": 0,
    "pool__max_waiting": 2 * _STREAMS,
    "pool__max_waiting_per_tenant": 2 * _STREAMS,
    "pool__acquire_timeout": 600,
    "drain_grace": 1,
}


class _Stream:
    """One stream; `opened` when it has said something, `beaten` when it has said so once more."""

    def __init__(self, http: aiohttp.ClientSession, url: str, together: asyncio.Semaphore) -> None:
        self.opened, self.beaten = asyncio.Event(), asyncio.Event()
        self.reading = asyncio.create_task(self._read(http, url, together))

    @property
    def lives(self) -> bool:
        """Whether it has not ended and has heard a heartbeat."""
        return self.beaten.is_set() and not self.reading.done()

    async def _read(
        self, http: aiohttp.ClientSession, url: str, together: asyncio.Semaphore
    ) -> None:
        async with AsyncExitStack() as opening:
            await opening.enter_async_context(together)
            async with begin(http, url, _BODY) as response:
                async for line in response.content:
                    if line.startswith(_BEAT):
                        (self.beaten if self.opened.is_set() else self.opened).set()
                        await opening.aclose()


async def run(plan: Plan, report: Report, fake: Path) -> None:
    """Open them before a service whose one process is busy, look, wait for a heartbeat, and leave."""
    _allow_files()
    rate = report.series(PART, "opened", "1/s")
    weight = report.series(PART, "the shim's memory for each", "KiB", "growth of its RSS")
    load = report.series(
        PART, "the shim's CPU while they are idle", "% of a core", "beats included"
    )
    settings = {**_WAITING, "cli__path": fake}
    async with AsyncExitStack() as stack:
        enter = stack.enter_async_context
        running = await enter(service(plan.home, "hi", settings))
        before = await enter(shim(plan.home, running, {"heartbeat": _HEARTBEAT}))
        http = await enter(http_client())
        await enter(_busy(await enter(connect(running.address))))
        # What it holds once is not counted: code, a first connection to the service.
        async with _streams(http, before.address, _TOGETHER):
            pass
        await rest()
        memory, begun = rss_bytes(before.pid), time.monotonic()
        async with _streams(http, before.address, _STREAMS) as streams:
            rate.values.append(_STREAMS / (time.monotonic() - begun))
            await rest()
            weight.values.append((rss_bytes(before.pid) - memory) / _STREAMS / 1024)
            used, begun = cpu_seconds(before.pid), time.monotonic()
            await _beaten(streams)
            took = time.monotonic() - begun
            load.values.append((cpu_seconds(before.pid) - used) / took * 100)
            alive = sum(each.lives for each in streams)
    name = f"of {_STREAMS:,} idle streams, alive after a heartbeat"
    report.findings.append(Finding(name, alive, Goal(_STREAMS, at_least=True)))


def _allow_files() -> None:
    """Each stream is one here and one in the shim, which inherits what this process may open."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


@asynccontextmanager
async def _busy(client: Client) -> AsyncIterator[None]:
    """A turn that has the only process, so that all others wait."""
    async with client.chat() as conversation:
        turn = await conversation.send(_BUSY)
        async with asyncio.timeout(_TIMEOUT):
            async for event in turn:
                if event.HasField("text_delta"):
                    break
        yield


@asynccontextmanager
async def _streams(
    http: aiohttp.ClientSession, url: str, count: int
) -> AsyncIterator[list[_Stream]]:
    together = asyncio.Semaphore(_TOGETHER)
    streams = [_Stream(http, url, together) for _ in range(count)]
    try:
        async with asyncio.timeout(_TIMEOUT):
            await asyncio.gather(*(each.opened.wait() for each in streams))
        yield streams
    finally:
        for each in streams:
            each.reading.cancel()
        await asyncio.wait([each.reading for each in streams])


async def _beaten(streams: list[_Stream]) -> None:
    """Wait until all have heard a heartbeat; who has not in twice the time is found to be dead."""
    waiting = [asyncio.create_task(each.beaten.wait()) for each in streams]
    _, late = await asyncio.wait(waiting, timeout=2 * _HEARTBEAT)
    for each in late:
        each.cancel()
