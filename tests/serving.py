"""`warmline serve` in a process of its own, with the fake CLI: to be killed, and started again."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator, Mapping
from contextlib import ExitStack, asynccontextmanager
from pathlib import Path

import psutil
from processes import runs
from running import until
from warmline.v1 import events_pb2 as pb
from warmline_client import Client, WarmlineError

WARMLINE = str(Path(sys.executable).parent / "warmline")
_START_TIMEOUT = 60.0
_END_TIMEOUT = 90.0
_ENDS = ("turn_completed", "turn_failed")


class Served:
    """A running service: its process and where it listens."""

    def __init__(self, process: Process, address: str, http: str = "") -> None:
        self.process = process
        self.address = address
        # Its URL, where it serves HTTP as well.
        self.http = http

    @property
    def port(self) -> int:
        """The port, for the next one."""
        return int(self.address.rpartition(":")[2])

    async def killed(self) -> None:
        """SIGKILL it, and wait until all that it had started is gone too."""
        children = psutil.Process(self.process.pid).children(recursive=True)
        self.process.kill()
        await self.process.wait()
        await until(lambda: not any(runs(child) for child in children))

    async def drained(self) -> None:
        """SIGTERM it and wait until it has ended well."""
        self.process.send_signal(signal.SIGTERM)
        assert await asyncio.wait_for(self.process.wait(), _END_TIMEOUT) == 0


@asynccontextmanager
async def served(
    data: Path,
    cli: Path,
    port: int = 0,
    settings: Mapping[str, object] | None = None,
    *,
    provider: str = "loopback",
    environ: Mapping[str, str] | None = None,
    log: Path | None = None,
    http: str = "",
) -> AsyncIterator[Served]:
    """A service; a setting is named as in the environment, without `WARMLINE_`; `environ` adds to that.

    What it writes to stderr goes to `log`, if that is given; `http` is where it serves HTTP.
    """
    # The fake CLI is a script of this run's, whose interpreter is anywhere.
    env = os.environ | {"WARMLINE_SANDBOX__LEVEL": "none"}
    env |= {f"WARMLINE_{name.upper()}": str(value) for name, value in (settings or {}).items()}
    env |= environ or {}
    env |= {"WARMLINE_CLI__PATH": str(cli), "WARMLINE_CLI__STOP_TIMEOUT": "1"}
    command: tuple[str, ...] = ("serve", "--listen", f"127.0.0.1:{port}", "--provider", provider)
    command += ("--http", http) if http else ()
    with ExitStack() as stack:
        stderr = stack.enter_context(log.open("ab")) if log is not None else None
        process = await asyncio.create_subprocess_exec(
            *(WARMLINE, *command, "--data-dir", str(data)),
            stdout=PIPE,
            stderr=stderr,
            env=env,
            start_new_session=True,
        )
    try:
        lines = [await _line(process) for _ in range(2 if http else 1)]
        yield Served(process, *lines)
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


async def _line(process: Process) -> str:
    """The last word of the next line: an address."""
    assert process.stdout is not None
    line = await asyncio.wait_for(process.stdout.readline(), _START_TIMEOUT)
    return line.decode().rpartition(" ")[2].strip()


async def journal(client: Client, session_id: str) -> list[pb.Event]:
    """All that is stored of a session; in order, each message with one end at the most."""
    events = [event async for event in client.watch(session_id, replay_only=True)]
    numbers = [event.seq for event in events]
    assert numbers == sorted(set(numbers))
    epochs = [event.epoch for event in events]
    assert epochs == sorted(epochs)
    ended = [event.turn_id for event in events if event.WhichOneof("kind") in _ENDS]
    assert len(ended) == len(set(ended))
    return events


def ends(events: list[pb.Event]) -> dict[str, str]:
    """How each message ended, by its text: `done`, a reason and whether it had begun, or nothing yet."""
    texts = {e.turn_id: e.turn_queued.text for e in events if e.HasField("turn_queued")}
    found = dict.fromkeys(texts.values(), "")
    for event in events:
        if event.HasField("turn_completed"):
            found[texts[event.turn_id]] = "done"
        elif event.HasField("turn_failed"):
            found[texts[event.turn_id]] = _why(event.turn_failed)
    return found


def _why(failed: pb.TurnFailed) -> str:
    error = WarmlineError(failed.status)
    return f"{error.reason} {error.metadata.get('started', '')}".rstrip()
