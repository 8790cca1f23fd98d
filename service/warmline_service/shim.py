"""The HTTP shim as a process beside the service: started after it, again where it dies, and stopped last."""

from __future__ import annotations

import asyncio
import contextlib
import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import structlog

from warmline_service.config import Settings
from warmline_service.worker import Child, stop_by_ladder

_log = structlog.get_logger(__name__)

# It asks the service who it lets in before it listens.
_START_TIMEOUT = 90.0
_WRITE_TIMEOUT = 5.0
# Its streams get 5 s once its input is closed.
_STOP_TIMEOUT = 7.0
_FIRST_PAUSE, _LONGEST_PAUSE = 0.5, 30.0
# One that lived so long begins anew with the shortest pause.
_STEADY = 60.0
_MOST_STARTS = 10
# Of what its output says before it is up: one line.
_LINE_BYTES = 4096
# As many streams as the shim has on one connection by itself.
_MOST_CALLS = 500
# Nothing of the service's own; what it is to know comes by its standard input.
_ENVIRONMENT = {"PATH": "/usr/local/bin:/usr/bin:/bin", "LANG": "C.UTF-8"}


class NotStarted(Exception):  # noqa: N818  # named for what is the case
    """The shim ended before it was up, having said why; `code` is how it ended."""

    def __init__(self, code: int) -> None:
        super().__init__("the HTTP shim did not start; the reason is above")
        self.code = code


class Shim:
    """Keeps one running. `start` first, `stop` when the service has stopped: its streams end with those of
    the service.

    `target` is where the service listens for it alone.
    """

    def __init__(self, settings: Settings, target: str) -> None:
        self._table = dict(settings.http)
        if settings.limits.streams_per_connection < _MOST_CALLS:
            self._table.setdefault("calls_per_connection", settings.limits.streams_per_connection)
        self._target = target
        self._child: Child | None = None
        self._keeping: asyncio.Task[None] | None = None

    async def start(self) -> str:
        """Start it; gives its line about where it listens. Raises NotStarted and OSError."""
        line = await self._up()
        # Whoever has found it shall find it again: a free port is taken once.
        port = line.rpartition(":")[2]
        host = str(self._table["listen"]).rpartition(":")[0]
        self._table["listen"] = f"{host}:{port}"
        self._keeping = asyncio.create_task(self._keep())
        return line

    async def stop(self) -> None:
        """Stop it, and start none again. Idempotent."""
        if self._keeping is not None:
            self._keeping.cancel()
            await asyncio.wait({self._keeping})
            self._keeping = None
        await self._down()

    async def _keep(self) -> None:
        loop, pause, starts = asyncio.get_running_loop(), _FIRST_PAUSE, 0
        began = loop.time()
        while True:
            child = self._child
            if child is not None:
                await asyncio.wait({child.reaped})
            if loop.time() - began > _STEADY:
                pause, starts = _FIRST_PAUSE, 0
            code = None if child is None else child.returncode
            await self._down()
            if starts == _MOST_STARTS:
                _log.error("http shim given up", code=code, starts=starts)
                return
            _log.error("http shim ended", code=code, again_in=pause)
            await asyncio.sleep(pause)
            pause, starts, began = min(2 * pause, _LONGEST_PAUSE), starts + 1, loop.time()
            with contextlib.suppress(NotStarted, OSError):
                await self._up()

    async def _up(self) -> str:
        command = (
            sys.executable,
            "-I",
            "-m",
            "warmline_http",
            "--follow",
            "--target",
            self._target,
        )
        # Its settings may name files from where the service was started.
        child = self._child = await Child.spawn(command, _ENVIRONMENT, Path.cwd())
        said: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        heard = bytearray()

        def hear(data: bytes) -> None:
            if not said.done():
                heard.extend(data[:_LINE_BYTES])
                line, newline, _ = heard.partition(b"\n")
                if newline:
                    said.set_result(line.decode(errors="replace"))

        child.output.listen(hear)
        child.errors.listen(_pass_on)
        try:
            with contextlib.suppress(OSError):
                await child.write(_line(self._table), _WRITE_TIMEOUT)
            return await _line_of(child, said)
        except BaseException:
            await self._down()
            raise

    async def _down(self) -> None:
        child, self._child = self._child, None
        if child is not None:
            if not child.reaped.done() and await stop_by_ladder(child, _STOP_TIMEOUT) != "stdin":
                _log.warning("http shim had to be killed")
            child.close()


async def _line_of(child: Child, said: asyncio.Future[str]) -> str:
    either: set[asyncio.Future[Any]] = {said, child.reaped}
    await asyncio.wait(either, timeout=_START_TIMEOUT, return_when=asyncio.FIRST_COMPLETED)
    if said.done():
        return said.result()
    await asyncio.wait({child.errors.ended}, timeout=_WRITE_TIMEOUT)
    raise NotStarted(max(child.returncode or 1, 1))


def _line(table: Mapping[str, object]) -> bytes:
    return json.dumps(table, default=str).encode() + b"\n"


def _pass_on(data: bytes) -> None:
    """What it writes for people and for logs stands among what the service writes."""
    sys.stderr.buffer.write(data)
    sys.stderr.buffer.flush()
