"""The processes that the benchmark starts and stops: the service, and the model beside it."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import psutil

_ROOT = Path(__file__).parents[1]
_START_TIMEOUT = 60.0
_STOP_TIMEOUT = 30.0


@dataclass(frozen=True)
class Service:
    """A running service."""

    pid: int
    address: str

    def processes(self) -> list[int]:
        """The pids of its direct children: one for each CLI process."""
        return [child.pid for child in psutil.Process(self.pid).children()]

    async def has_processes(self, count: int) -> None:
        """Wait until there are at least so many CLI processes."""
        async with asyncio.timeout(_START_TIMEOUT):
            while len(self.processes()) < count:  # noqa: ASYNC110  # nothing tells of it
                await asyncio.sleep(0.05)


@asynccontextmanager
async def service(home: Path, name: str, settings: Mapping[str, object]) -> AsyncIterator[Service]:
    """A service with the loopback model; at its end nothing of its slots may be left.

    `settings` go by the names of the settings, such as `pool__min_spares`.
    """
    data = home / name
    given = {f"WARMLINE_{key.upper()}": str(value) for key, value in settings.items()}
    command = ("warmline_service", "serve", "--listen", "127.0.0.1:0", "--provider", "loopback")
    async with _running((*command, "--data-dir", str(data)), home / f"{name}.log", given) as (
        child,
        line,
    ):
        yield Service(child.pid, line.rpartition(" ")[2])
    left = list(data.glob("slots/*/"))
    if left:
        raise RuntimeError(f"the service left {len(left)} slots behind")


@asynccontextmanager
async def model(home: Path) -> AsyncIterator[Path]:
    """The loopback model in a process of its own, at the unix socket that is given."""
    path = home / "model.sock"
    async with _running(("bench.loopback", str(path)), home / "model.log", {}):
        yield path


@asynccontextmanager
async def model_on_tcp(home: Path) -> AsyncIterator[str]:
    """The loopback model in a process of its own, at the URL that is given."""
    command = ("warmline_service", "loopback", "--listen", "127.0.0.1:0")
    async with _running(command, home / "tcp-model.log", {}) as (_, line):
        yield line.rpartition(" ")[2]


@asynccontextmanager
async def shim(
    home: Path, before: Service, settings: Mapping[str, object] | None = None
) -> AsyncIterator[Service]:
    """The HTTP shim before a service; its address is a URL. `settings`: by name, such as `heartbeat`."""
    given = {f"WARMLINE_HTTP__{key.upper()}": str(each) for key, each in (settings or {}).items()}
    command = ("warmline_http", "--listen", "127.0.0.1:0", "--target", before.address)
    async with _running(command, home / f"shim-{before.pid}.log", given) as (child, line):
        yield Service(child.pid, line.rpartition(" ")[2])


@asynccontextmanager
async def relay(home: Path, binary: Path) -> AsyncIterator[Service]:
    """A bare gRPC server over processes of `binary`."""
    async with _running(("bench.relay", str(binary)), home / "relay.log", {}) as (child, line):
        yield Service(child.pid, line.rpartition(" ")[2])


async def end(child: Process, *, kill: bool = False) -> int:
    """End a child: by SIGTERM and a wait of 30 s first, unless it may be killed at once."""
    if child.returncode is None and not kill:
        child.send_signal(signal.SIGTERM)
        try:
            return await asyncio.wait_for(child.wait(), _STOP_TIMEOUT)
        except TimeoutError:
            pass
    if child.returncode is None:
        os.killpg(child.pid, signal.SIGKILL)
    return await child.wait()


@asynccontextmanager
async def running(
    command: Sequence[str], log: Path, environment: Mapping[str, str], *, heard: bool = False
) -> AsyncIterator[Process]:
    """A child that ends with the context. What it says goes to the log; with `heard` its output to a pipe."""
    with log.open("wb") as said:
        child = await asyncio.create_subprocess_exec(
            *command,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=PIPE if heard else said,
            stderr=said,
            cwd=_ROOT,
            env={**os.environ, **environment},
            # Ctrl-C is for the benchmark, which then ends its children one by one.
            start_new_session=True,
        )
    try:
        yield child
    finally:
        await asyncio.shield(asyncio.ensure_future(end(child)))


@asynccontextmanager
async def _running(
    module: Sequence[str], log: Path, environment: Mapping[str, str]
) -> AsyncIterator[tuple[Process, str]]:
    """A Python module that says on its first line of output that it is up."""
    given = {"WARMLINE_LOG__LEVEL": "warning", **environment}
    async with running((sys.executable, "-m", *module), log, given, heard=True) as child:
        assert child.stdout is not None
        async with asyncio.timeout(_START_TIMEOUT):
            line = (await child.stdout.readline()).decode().strip()
        if not line:
            raise RuntimeError(f"{module[0]} did not start: {tail(log)}")
        yield child, line


def tail(log: Path) -> str:
    """The last of what a child said."""
    return log.read_text(encoding="utf-8", errors="replace")[-2000:]
