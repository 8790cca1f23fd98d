"""The HTTP shim for a test, in front of a whole service, and requests to it."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import asynccontextmanager, closing, contextmanager
from dataclasses import dataclass
from typing import Any

import httpx
from running import running_service
from warmline_http._serve import serving
from warmline_http._settings import HttpSettings
from warmline_service.server import Service

_UP = 30.0


@dataclass(frozen=True)
class Shim:
    """A shim that is up, and a client that speaks HTTP to it."""

    url: str
    http: httpx.AsyncClient


@asynccontextmanager
async def shim_before(service: Service, **settings: Any) -> AsyncIterator[Shim]:
    """A shim in front of a service."""
    async with shim_to(f"127.0.0.1:{service.port}", **settings) as shim:
        yield shim


@asynccontextmanager
async def shim_to(target: str, **settings: Any) -> AsyncIterator[Shim]:
    """A shim in front of an address."""
    async with serving(HttpSettings(listen="127.0.0.1:0", target=target, **settings)) as port:
        url = f"http://127.0.0.1:{port}"
        async with httpx.AsyncClient(base_url=url, timeout=60) as client:
            yield Shim(url, client)


@contextmanager
def shim_in_a_thread(target: str, **settings: Any) -> Iterator[str]:
    """A shim on a loop of its own, for what calls it without one; its URL."""
    up: Future[str] = Future()
    loop = asyncio.new_event_loop()
    stopping = asyncio.Event()

    async def main() -> None:
        async with serving(HttpSettings(listen="127.0.0.1:0", target=target, **settings)) as port:
            up.set_result(f"http://127.0.0.1:{port}")
            await stopping.wait()

    with ThreadPoolExecutor(1) as threads, closing(loop):
        running = threads.submit(loop.run_until_complete, main())
        try:
            yield up.result(_UP)
        finally:
            loop.call_soon_threadsafe(stopping.set)
            running.result(_UP)


@asynccontextmanager
async def running_shim(http: dict[str, Any] | None = None, **changes: Any) -> AsyncIterator[Shim]:
    """A shim and a service of its own; `http` are the shim's settings, `changes` the service's."""
    async with running_service(**changes) as service, shim_before(service, **(http or {})) as shim:
        yield shim


def cli_lines(answer: httpx.Response) -> list[Any]:
    """The lines that `/v1/messages/keepalive` tells, which end by `[DONE]`."""
    data = [line[6:] for line in answer.text.split("\n") if line.startswith("data: ")]
    assert data.pop() == "[DONE]"
    return [json.loads(each) for each in data]
