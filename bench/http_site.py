"""What the parts that measure HTTP share."""

from __future__ import annotations

from dataclasses import dataclass

import aiohttp
from warmline_client import Client

from bench.children import Service

# The one that the fake CLI has.
MODEL = "claude-opus-5-5"


@dataclass(frozen=True)
class Side:
    """A service, the shim before it, and a client of its gRPC."""

    service: Service
    shim: Service
    client: Client


@dataclass(frozen=True)
class Site:
    """The real CLI and the fake one; the model by itself, and LiteLLM's proxy before it if there is one."""

    real: Side
    fake: Side
    model: str
    litellm: Service | None
    http: aiohttp.ClientSession
