"""The CLI without a service: on a bare pipe, and as `claude -p`."""

from __future__ import annotations

import asyncio
import json
import time
import uuid
from asyncio.subprocess import DEVNULL, PIPE, Process
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from warmline_service.worker import Slot, SpawnKey
from warmline_service.worker._argv import Files, build_argv
from warmline_service.worker._environment import build_environment
from warmline_service.worker._slots import make, wipe

from bench.children import end

_LINE_LIMIT = 64 * 1024 * 1024
_TIMEOUT = 60.0
# A spare of no particular kind reads none.
_NO_FILES = Files(Path("unused"), Path("unused"))
# What a line of these kinds always holds; to parse each line would slow down what is compared with.
_TEXT, _END = b'"text_delta"', b'"type":"result"'


class BarePipe:
    """A CLI process that is read and written by as little code as possible."""

    def __init__(self, child: Process) -> None:
        self.pid = child.pid
        assert child.stdin is not None
        assert child.stdout is not None
        self._in, self._out = child.stdin, child.stdout

    async def initialize(self) -> None:
        """Have it answer, as the first turn of a kept process finds it."""
        request = {"subtype": "initialize"}
        self._write({"type": "control_request", "request_id": "1", "request": request})
        await self._line_with(b"control_response")

    async def turn(self, text: str) -> float:
        """Say something; the seconds from then to the first text of the answer."""
        message = {"role": "user", "content": text}
        line = {"type": "user", "message": message, "uuid": str(uuid.uuid4())}
        more = {"parent_tool_use_id": None, "session_id": "", "client_composed": True}
        begun = time.perf_counter()
        self._write({**line, **more})
        await self._line_with(_TEXT)
        first = time.perf_counter() - begun
        await self._line_with(_END)
        return first

    def _write(self, line: dict[str, object]) -> None:
        self._in.write(json.dumps(line).encode() + b"\n")

    async def _line_with(self, wanted: bytes) -> None:
        async with asyncio.timeout(_TIMEOUT):
            while line := await self._out.readline():
                if wanted in line:
                    return
        raise RuntimeError("the CLI ended before its answer")


@asynccontextmanager
async def bare_pipe(home: Path, binary: Path, model: Path) -> AsyncIterator[BarePipe]:
    """A process with the command line and the environment that the service would give it."""
    async with _slot(home) as slot:
        child = await asyncio.create_subprocess_exec(
            *build_argv(binary, SpawnKey(), _NO_FILES),
            stdin=PIPE,
            stdout=PIPE,
            stderr=DEVNULL,
            limit=_LINE_LIMIT,
            cwd=slot.work,
            env=environment(slot, model),
            start_new_session=True,
        )
        try:
            yield BarePipe(child)
        finally:
            await asyncio.shield(asyncio.ensure_future(end(child, kill=True)))


async def print_mode(home: Path, binary: Path, model: Path) -> float:
    """Run `claude -p TEXT`; the seconds from its start to the first text of the answer."""
    flags = [
        flag for flag in build_argv(binary, SpawnKey(), _NO_FILES) if "input-format" not in flag
    ]
    async with _slot(home) as slot:
        begun = time.perf_counter()
        child = await asyncio.create_subprocess_exec(
            *flags,
            "hello",
            stdin=DEVNULL,
            stdout=PIPE,
            stderr=DEVNULL,
            limit=_LINE_LIMIT,
            cwd=slot.work,
            env=environment(slot, model),
            start_new_session=True,
        )
        try:
            async with asyncio.timeout(_TIMEOUT):
                return await _first_text(child, begun)
        finally:
            await asyncio.shield(asyncio.ensure_future(end(child, kill=True)))


def environment(slot: Slot, model: Path) -> dict[str, str]:
    """As the service builds it, with the model at a unix socket."""
    endpoint = {
        "ANTHROPIC_UNIX_SOCKET": str(model),
        "ANTHROPIC_BASE_URL": "http://localhost",
        "ANTHROPIC_API_KEY": "placeholder",
    }
    return build_environment(slot, endpoint, 0)


async def _first_text(child: Process, begun: float) -> float:
    assert child.stdout is not None
    while line := await child.stdout.readline():
        if _TEXT in line:
            first = time.perf_counter() - begun
            # To its end: a process that is cut may leave work behind that disturbs the next sample.
            await child.stdout.read()
            await child.wait()
            return first
    raise RuntimeError("the CLI ended before its answer")


@asynccontextmanager
async def _slot(home: Path) -> AsyncIterator[Slot]:
    identifier = uuid.uuid4().hex[:12]
    slot = Slot(identifier, home / identifier)
    await asyncio.to_thread(make, slot)
    try:
        yield slot
    finally:
        await asyncio.to_thread(wipe, slot)
