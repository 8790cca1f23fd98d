"""The database behind the service, and how it fails: PostgreSQL's server and connections, SQLite's disk."""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import os
import shutil
import signal
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, asynccontextmanager
from pathlib import Path
from typing import TypeVar
from urllib.parse import urlencode

import psutil
from postgres import PostgresCluster, PostgresServer, postgres_cluster

from chaos.proxy import FaultProxy, unix_proxy

T = TypeVar("T")

# A killed server may have lost nothing that it has said it stored.
_DURABLE = {"synchronous_commit": "on", "full_page_writes": "on"}
_NAME = "chaos"
_TERMINATE = (
    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
    "WHERE datname = 'chaos' AND pid <> pg_backend_pid()"
)
_CLONE_NEWNS = 0x20000
_MS_PRIVATE_RECURSIVE = (1 << 18) | (1 << 14)
_DISK_BYTES = 256 * 1024 * 1024


class Postgres:
    """A server of our own that is killed, frozen and started again."""

    def __init__(self, cluster: PostgresCluster, proxy: FaultProxy, url: str) -> None:
        self.proxy = proxy
        self.url = url
        self._cluster = cluster
        self._life = ExitStack()
        self._server: PostgresServer | None = None
        # The server dies with the thread that started it, so it is always the same one.
        self._thread = ThreadPoolExecutor(1, "postgres")

    async def start(self) -> None:
        """Start the server."""
        self._server = await self._apart(
            lambda: self._life.enter_context(self._cluster.running(**_DURABLE))
        )

    async def make(self) -> None:
        """Make the database."""
        await self._sql(f"CREATE DATABASE {_NAME}")

    async def kill(self) -> None:
        """SIGKILL the server and each of its processes."""
        assert self._server is not None
        family = [psutil.Process(self._server.pid)]
        family += family[0].children(recursive=True)
        for process in family:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
        await self._apart(self._life.close)
        await self._apart(lambda: psutil.wait_procs(family, timeout=10))

    async def terminate(self) -> None:
        """End every connection from the server's side."""
        await self._sql(_TERMINATE)

    async def freeze(self, seconds: float) -> None:
        """Stop every connection's process for a time."""
        assert self._server is not None
        backends = [each for each in psutil.Process(self._server.pid).children() if _serves(each)]
        _signal(backends, signal.SIGSTOP)
        try:
            await asyncio.sleep(seconds)
        finally:
            _signal(backends, signal.SIGCONT)

    async def aclose(self) -> None:
        """Stop the server."""
        await self._apart(self._life.close)
        self._thread.shutdown()

    async def _sql(self, statement: str) -> str:
        server = self._server
        assert server is not None
        return await self._apart(lambda: server.sql(statement))

    async def _apart(self, work: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._thread, work)


def _serves(process: psutil.Process) -> bool:
    with contextlib.suppress(psutil.Error):
        return f" {_NAME} " in " ".join(process.cmdline())
    return False


def _signal(processes: list[psutil.Process], number: signal.Signals) -> None:
    for process in processes:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.send_signal(number)


@asynccontextmanager
async def running_database(home: Path) -> AsyncIterator[Postgres]:
    """A PostgreSQL with an empty database, behind a proxy; when it ends nothing is left."""
    with postgres_cluster() as cluster:
        near = home / "pg" / ".s.PGSQL.5432"
        near.parent.mkdir()
        where = urlencode({"host": str(near.parent), "port": "5432"})
        url = f"postgresql://warmline@/{_NAME}?{where}"
        async with unix_proxy(near, cluster.root / near.name) as proxy:
            database = Postgres(cluster, proxy, url)
            try:
                await database.start()
                await database.make()
                yield database
            finally:
                await database.aclose()


def own_disk(path: Path) -> str:
    """Put a small disk at a path, which only this process and its children see; else say why not.

    Call before there is a second thread.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.unshare(_CLONE_NEWNS):
        return f"no mount namespace: {os.strerror(ctypes.get_errno())}"
    nothing = ctypes.c_char_p()
    if libc.mount(b"none", b"/", nothing, _MS_PRIVATE_RECURSIVE, nothing):
        return f"no private mounts: {os.strerror(ctypes.get_errno())}"
    size = f"size={_DISK_BYTES}".encode()
    if libc.mount(b"chaos", str(path).encode(), b"tmpfs", 0, size):
        return f"no mount: {os.strerror(ctypes.get_errno())}"
    return ""


def release_disk(path: Path) -> None:
    """Take the disk away."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.umount(str(path).encode()):
        raise OSError(ctypes.get_errno(), f"umount {path}")


async def fill_disk(path: Path, seconds: float) -> None:
    """Leave no room on a disk for a time."""
    filler = path / "filler"
    try:
        with filler.open("wb") as file, contextlib.suppress(OSError):
            while free := shutil.disk_usage(path).free:
                file.write(bytes(min(free, 1024 * 1024)))
                file.flush()
        await asyncio.sleep(seconds)
    finally:
        filler.unlink()
