"""A whole service for a test: the real CLI, the loopback model, a port and a data directory of its own."""

import asyncio
import shutil
import sys
import tempfile
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import fake_cli
from warmline.v1 import events_pb2
from warmline_client import Client, Conversation, connect
from warmline_service.config import Settings, load
from warmline_service.server import Service

# Small and quick, so that many tests fit: no retries, one spare of each kind.
_SMALL: dict[str, Any] = {
    "listen": "127.0.0.1:0",
    "provider": {"kind": "loopback"},
    # What a slow machine needs: nothing here waits for one of these to pass.
    "cli": {
        "max_retries": 0,
        "interrupt_timeout": 3,
        "start_timeout": 90,
        "control_timeout": 60,
    },
    # A spare that was taken is not replaced within a test that does not ask for it: half of the processes
    # that a test started were not used by anybody.
    "pool": {
        "min_spares": 1,
        "max_spares": 1,
        "max_processes": 6,
        "acquire_timeout": 90,
        "refill_delay": 60,
    },
    "drain_grace": 5,
}


# What a process in a sandbox may read, so that it can run the tests' Python and what they bring.
TOOLS = (sys.prefix, sys.base_prefix, str(Path(__file__).parent))


def small_settings(data_dir: Path, **changes: Any) -> Settings:
    """Settings for a test; a changed table replaces only the names it has."""
    merged = {
        name: dict(value) if isinstance(value, dict) else value for name, value in _SMALL.items()
    }
    for name, value in changes.items():
        merged[name] = merged.get(name, {}) | value if isinstance(value, dict) else value
    if "path" in merged["cli"]:
        # The fake one is a script of this run's, whose interpreter is anywhere.
        merged.setdefault("sandbox", {"level": "none"})
    return load(None, data_dir=data_dir, **merged)


@contextmanager
def data_directory() -> Iterator[Path]:
    """A data directory that several services may have, one after another."""
    # Short: the path of a slot's socket has at most 107 bytes.
    data_dir = Path(tempfile.mkdtemp())
    try:
        yield data_dir
    finally:
        shutil.rmtree(data_dir)


@asynccontextmanager
async def service_in(
    data_dir: Path, show_key: Callable[[str], None] | None = None, **changes: Any
) -> AsyncIterator[Service]:
    """A service that is up; at the end it is drained, and nothing may be left of its slots."""
    service = Service(small_settings(data_dir, **changes), show_key)
    try:
        await service.start()
        yield service
    finally:
        await service.stop()
        left = list(data_dir.glob("slots/*/"))
        assert not left, f"slots left behind: {left}"


@asynccontextmanager
async def running_service(**changes: Any) -> AsyncIterator[Service]:
    """A service that is up, with a data directory of its own."""
    with data_directory() as data_dir:
        async with service_in(data_dir, **changes) as service:
            yield service


@asynccontextmanager
async def running_client(**changes: Any) -> AsyncIterator[Client]:
    """A client of a service of its own."""
    async with (
        running_service(**changes) as service,
        connect(f"127.0.0.1:{service.port}") as client,
    ):
        yield client


async def events_of(conversation: Conversation, text: str) -> list[events_pb2.Event]:
    """Say something and collect the turn's events."""
    turn = await conversation.send(text)
    async with asyncio.timeout(90):
        return [event async for event in turn]


def kinds(events: list[events_pb2.Event]) -> list[str]:
    """What kind each event is."""
    return [str(event.WhichOneof("kind")) for event in events]


def text_of(events: list[events_pb2.Event]) -> str:
    """The answer's text, from its deltas."""
    return "".join(event.text_delta.text for event in events if event.HasField("text_delta"))


def faking(directory: Path, **cli: Any) -> dict[str, Any]:
    """The settings `cli` of a service whose CLI is the fake one."""
    return {
        "path": fake_cli.install(directory / "fake"),
        "interrupt_timeout": 1,
        "stop_timeout": 1,
    } | cli


async def until(condition: Callable[[], bool], timeout: float = 60.0) -> None:
    """Wait for what only the operating system can say, such as that a process is gone."""
    async with asyncio.timeout(timeout):
        while not condition():
            await asyncio.sleep(0.02)
