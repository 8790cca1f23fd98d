"""Services with several tenants, each with keys of its own."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from running import data_directory, faking, running_service, service_in
from warmline_service.tenants import hash_key, new_key


def tenant(name: str, **key: Any) -> tuple[dict[str, Any], str]:
    """A tenant with one key, for the settings; and the key."""
    identifier, secret = new_key()
    entry = {"id": identifier, "sha256": hash_key(secret)} | key
    return {"id": name, "keys": [entry]}, secret


@asynccontextmanager
async def two_tenants(directory: Path) -> AsyncIterator[tuple[str, str, str]]:
    """A service with two tenants: its address and both keys."""
    acme, first = tenant("acme")
    other, second = tenant("other")
    async with running_service(tenants=[acme, other], cli=faking(directory)) as service:
        yield f"127.0.0.1:{service.port}", first, second


@asynccontextmanager
async def administered(directory: Path, **changes: Any) -> AsyncIterator[tuple[str, str]]:
    """A service that had no key: its address, and the key that it made."""
    shown: list[str] = []
    with data_directory() as data:
        settings = {"cli": faking(directory), "auth": "required"} | changes
        async with service_in(data, shown.append, **settings) as service:
            yield f"127.0.0.1:{service.port}", shown[0]
