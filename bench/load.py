"""The programs that make and take the load: compiled, so that they are not what fills the machine."""

from __future__ import annotations

import asyncio
import os
import subprocess
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from bench.children import end

_ROOT = Path(__file__).parents[1]
_GO = _ROOT / ".venv" / "bin" / "go"
_READER = _ROOT / "build" / "bin" / "fanout"
_BUILD_TIMEOUT = 300.0
_TIMEOUT = 120.0
# Ours alone: a caller's settings must not decide what is built.
_GO_ENVIRONMENT = {
    "GOTOOLCHAIN": "local",
    "GOWORK": "off",
    "GOFLAGS": "-mod=readonly -buildvcs=false",
}


def build_generator(directory: Path) -> Path:
    """A fake CLI whose deltas are the times at which they were written; its path."""
    directory.mkdir(parents=True, exist_ok=True)
    binary = directory / "claude"
    _build(("cc", "-O2", "-o", str(binary), str(_ROOT / "bench" / "generator.c")), _ROOT, {})
    return binary


def build_reader() -> None:
    """Make the client of many streams. Go looks for its modules by the caller's environment."""
    command = (str(_GO), "build", "-o", str(_READER), "./internal/fanout")
    _build(command, _ROOT / "clients" / "go", _GO_ENVIRONMENT)


@dataclass(frozen=True)
class Arrival:
    """One delta: when it was written, seen by the service and received, in nanoseconds of the day."""

    written: int
    seen: int
    received: int


class Reading:
    """Streams that are ready to run a turn each, as often as they are told to."""

    def __init__(self, child: Process) -> None:
        assert child.stdin is not None
        assert child.stdout is not None
        self.pid = child.pid
        self._in, self._out = child.stdin, child.stdout

    async def expect(self, word: str) -> None:
        """Wait for the reader to say this."""
        async with asyncio.timeout(_TIMEOUT):
            said = (await self._out.readline()).decode().strip()
        if said != word:
            raise RuntimeError(f"the reader of the streams said {said!r}, not {word!r}")

    async def run(self) -> None:
        """Begin a turn on each and wait until the last one has ended."""
        self._in.write(b"\n")
        await self.expect("done")

    async def arrivals(self) -> list[Arrival]:
        """What was received in all turns; the streams end."""
        self._in.close()
        async with asyncio.timeout(_TIMEOUT):
            lines = (await self._out.read()).decode().splitlines()
        return [each for line in lines for each in _arrivals(line)]


@asynccontextmanager
async def reading(*arguments: object) -> AsyncIterator[Reading]:
    """The reader, when all of its streams have had a first turn."""
    child = await asyncio.create_subprocess_exec(
        _READER, *map(str, arguments), stdin=PIPE, stdout=PIPE, start_new_session=True
    )
    try:
        ready = Reading(child)
        await ready.expect("ready")
        yield ready
    finally:
        await asyncio.shield(asyncio.ensure_future(end(child)))


def _arrivals(line: str) -> list[Arrival]:
    """Deltas that the service has joined hold several times."""
    received, seen, *written = map(int, line.split())
    return [Arrival(each, seen, received) for each in written]


def _build(command: Sequence[str], cwd: Path, more: Mapping[str, str]) -> None:
    environment = {**os.environ, **more}
    done = subprocess.run(
        command,
        cwd=cwd,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        timeout=_BUILD_TIMEOUT,
        check=False,
    )
    if done.returncode:
        raise RuntimeError(f"{command[0]} failed: {done.stdout.decode(errors='replace')[-2000:]}")
