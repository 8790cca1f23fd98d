"""The HTTP shim for a test, in front of a whole service, and requests to it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import httpx
from running import running_service
from warmline_http._serve import serving
from warmline_http._settings import HttpSettings
from warmline_service.server import Service


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


@asynccontextmanager
async def running_shim(http: dict[str, Any] | None = None, **changes: Any) -> AsyncIterator[Shim]:
    """A shim and a service of its own; `http` are the shim's settings, `changes` the service's."""
    async with running_service(**changes) as service, shim_before(service, **(http or {})) as shim:
        yield shim
