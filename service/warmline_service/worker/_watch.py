"""Looks after what no limit of the kernel's bounds: the memory of a tree, what it stores."""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import structlog

from warmline_service.config import MIB, SandboxSettings
from warmline_service.worker._slot import Slot
from warmline_service.worker._usage import Stored, private, stored_below, stored_unnamed, tree

_log = structlog.get_logger(__name__)

# The machine as a whole is looked at so often, which costs next to nothing.
_TICK = 0.2
# Each process is, when the machine has lost a good part of what one may have, or so long after the last time.
_PART = 8
_ROUND = 5.0
# Looking at a process may take so much of the time, and looking at all of them so many seconds of each tick.
_SHARE, _URGENT_SHARE = 0.02, 0.25
_BUDGET = 0.01


class Watched(Protocol):
    """A process, from this side."""

    @property
    def pid(self) -> int:
        """The first of its tree."""
        ...

    @property
    def slot(self) -> Slot:
        """Where it may write."""
        ...

    @property
    def folders(self) -> tuple[Path, ...]:
        """Where else."""
        ...

    def give_up(self, cause: str) -> None:
        """End it at once."""


@dataclass
class _Record:
    """When a process may be looked at again; by how urgent that is."""

    rest: float = 0.0
    urgent_rest: float = 0.0


@dataclass
class _Machine:
    """What the machine has left."""

    memory: int
    disk: int
    files: int

    @classmethod
    def now(cls, root: Path) -> _Machine:
        about = os.statvfs(root)
        memory = 0
        for line in Path("/proc/meminfo").read_text(encoding="ascii").splitlines():
            if line.startswith("MemAvailable:"):
                memory = int(line.split()[1]) * 1024
        return cls(memory, about.f_bavail * about.f_frsize, about.f_favail)


@dataclass
class Watch:
    """Ends what takes more than it may. `root` is on the disk that is watched."""

    settings: SandboxSettings
    root: Path
    _records: dict[Watched, _Record] = field(default_factory=dict)
    _task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin to watch; what fails is logged and tried again."""
        self._task = asyncio.create_task(self._run(), name="watch")

    async def aclose(self) -> None:
        """Watch no more."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait({self._task})
            self._task = None

    def add(self, process: Watched) -> None:
        """Watch a process from now on."""
        self._records[process] = _Record()

    def forget(self, process: Watched) -> None:
        """It has ended."""
        self._records.pop(process, None)

    async def _run(self) -> None:
        loop = asyncio.get_running_loop()
        before, since = await asyncio.to_thread(_Machine.now, self.root), loop.time()
        while True:
            await asyncio.sleep(_TICK)
            with _logged():
                now = await asyncio.to_thread(_Machine.now, self.root)
                urgent = self._fell(before, now)
                await self._look(urgent, loop.time)
                if urgent or loop.time() - since >= _ROUND:
                    before, since = now, loop.time()

    def _fell(self, before: _Machine, now: _Machine) -> bool:
        own = self.settings
        return (
            before.memory - now.memory >= own.memory_bytes // _PART
            or before.disk - now.disk >= own.disk_bytes // _PART
            or before.files - now.files >= own.files // _PART
        )

    async def _look(self, urgent: bool, time: Callable[[], float]) -> None:
        stop = time() + _BUDGET
        for process, record in list(self._records.items()):
            begun = time()
            if begun >= stop and not urgent:
                return  # The others have their turn with the next tick.
            if begun < (record.urgent_rest if urgent else record.rest):
                continue
            cause = await asyncio.to_thread(self._judge, process)
            took = time() - begun
            record.rest = time() + max(took / _SHARE, _ROUND)
            record.urgent_rest = time() + took / _URGENT_SHARE
            if cause and process in self._records:
                _log.warning("process ended for what it used", slot=process.slot.id, cause=cause)
                process.give_up(cause)

    def _judge(self, process: Watched) -> str:
        """Why a process has to end; empty where it has not. Blocks."""
        own, pids = self.settings, tree(process.pid)
        if private(pids) > own.memory_bytes:
            return own.memory_exceeded
        most = Stored(own.disk_bytes, own.files)
        # Each for itself: a named workspace is the tenant's, and was there before.
        for folder in (process.slot.root, *process.folders):
            stored = stored_below([folder], most)
            unnamed = stored_unnamed(pids) if folder == process.slot.root else 0
            if stored.bytes + unnamed > most.bytes:
                return f"stored more than {own.disk_bytes // MIB} MiB"
            if stored.files > most.files:
                return f"stored more than {own.files} files"
        return ""


@contextlib.contextmanager
def _logged() -> Iterator[None]:
    try:
        yield
    except Exception:  # noqa: BLE001  # it has to go on watching
        _log.exception("looking at processes failed")
