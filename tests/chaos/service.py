"""The service as a process that is killed and started again, as a supervisor would."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import sys
from asyncio.subprocess import DEVNULL, PIPE, Process
from collections.abc import Mapping
from pathlib import Path

import psutil

_WARMLINE = str(Path(sys.executable).parent / "warmline")
_START_TIMEOUT = 60.0
_STOP_TIMEOUT = 30.0
# Between two tries to start, as where the database is down.
_PAUSE = 0.2
_MARK = b"WARMLINE_SLOT="


class ServiceProcess:
    """`warmline serve` on one port and one data directory, through any number of lives."""

    def __init__(
        self, port: int, data_dir: Path, log: Path, settings: Mapping[str, object]
    ) -> None:
        self.lives = 0
        # What an end of its own left behind, or said by another code than 0.
        self.bad_ends: list[str] = []
        self.data_dir = data_dir
        self.log = log
        self._port = port
        self._process: Process | None = None
        given = {f"WARMLINE_{name.upper()}": str(value) for name, value in settings.items()}
        self._env = {"PATH": os.environ["PATH"], "HOME": str(log.parent), **given}

    @property
    def address(self) -> str:
        """Where it serves, without any proxy between."""
        return f"127.0.0.1:{self._port}"

    @property
    def pid(self) -> int | None:
        """Its process, while there is one."""
        alive = self._process is not None and self._process.returncode is None
        return self._process.pid if alive and self._process is not None else None

    async def spawn(self) -> None:
        """Start it; it is not up yet."""
        listen = ("--listen", f"127.0.0.1:{self._port}", "--data-dir", str(self.data_dir))
        self.lives += 1
        with self.log.open("ab") as log:
            self._process = await asyncio.create_subprocess_exec(
                # Dies with us, however we end; Ctrl-C is for us alone.
                *("setpriv", "--pdeathsig", "KILL", "--", _WARMLINE, "serve", *listen),
                stdin=DEVNULL,
                stdout=PIPE,
                stderr=log,
                env=self._env,
                start_new_session=True,
            )

    async def up(self) -> bool:
        """Wait until it serves; False where it ended instead."""
        assert self._process is not None
        assert self._process.stdout is not None
        async with asyncio.timeout(_START_TIMEOUT):
            line = await self._process.stdout.readline()
        if not line:
            await self._process.wait()
        return bool(line)

    async def start(self) -> None:
        """Start it until it serves; TimeoutError where it never does."""
        async with asyncio.timeout(_START_TIMEOUT):
            await self.spawn()
            while not await self.up():
                await asyncio.sleep(_PAUSE)
                await self.spawn()

    async def kill(self) -> None:
        """SIGKILL."""
        if self.pid is not None and self._process is not None:
            self._process.kill()
            await self._process.wait()

    async def stop(self) -> None:
        """SIGTERM, and wait until it has drained."""
        if self.pid is None or self._process is None:
            return
        self._process.send_signal(signal.SIGTERM)
        try:
            code = await asyncio.wait_for(self._process.wait(), _STOP_TIMEOUT)
        except TimeoutError:
            self.bad_ends.append(f"did not end within {_STOP_TIMEOUT:g} s of SIGTERM")
            await self.kill()
            return
        if code:
            self.bad_ends.append(f"ended with code {code} after SIGTERM")
        if left := [each.name for each in self.data_dir.glob("slots/*/")]:
            self.bad_ends.append(f"left slots behind: {left}")

    def terminate(self) -> None:
        """SIGTERM, without a wait."""
        if self.pid is not None and self._process is not None:
            self._process.send_signal(signal.SIGTERM)

    def cli_processes(self) -> list[int]:
        """Every process, below it or orphaned, that carries the mark of one of its slots."""
        where = str(self.data_dir / "slots").encode()
        return [pid for pid in psutil.pids() if _marked(pid, where)]


def _marked(pid: int, where: bytes) -> bool:
    with contextlib.suppress(OSError):
        environment = Path(f"/proc/{pid}/environ").read_bytes()
        return _MARK in environment and where in environment
    return False


def free_port() -> int:
    """A port that nobody has, outside of those that connections are given."""
    for port in range(20000 + os.getpid() % 8000, 32000):
        with socket.socket() as sock, contextlib.suppress(OSError):
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            sock.bind(("127.0.0.1", port))
            return port
    raise OSError("no free port between 20000 and 32000")
