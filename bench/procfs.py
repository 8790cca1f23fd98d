"""What processes use, and when they rest."""

from __future__ import annotations

import asyncio
import contextlib
import os
import time
from pathlib import Path

import psutil

# CPU that processes which rest may use within a window, in seconds: two ticks of the kernel's count.
_RESTING = 0.02
_WINDOW = 0.15
_REST_TIMEOUT = 20.0


class NeverRests(Exception):  # noqa: N818  # named for what is the case
    """Processes that should rest go on computing."""


def cpu_seconds(pid: int) -> float:
    """User and system time of one process, children not counted."""
    times = psutil.Process(pid).cpu_times()
    return float(times.user + times.system)


def rss_bytes(pid: int) -> int:
    """Resident memory of one process, children not counted."""
    return int(psutil.Process(pid).memory_info().rss)


def tree(pid: int) -> list[psutil.Process]:
    """A process and all below it; empty when it is gone."""
    with contextlib.suppress(psutil.NoSuchProcess):
        top = psutil.Process(pid)
        return [top, *top.children(recursive=True)]
    return []


def tree_pss(pid: int) -> int:
    """Memory of a tree in bytes, with what is shared divided among those who share it."""
    total = 0
    for process in tree(pid):
        with contextlib.suppress(psutil.NoSuchProcess):
            total += process.memory_full_info().pss
    return total


def tree_cpu(pid: int) -> float:
    """User and system time of a tree, in seconds."""
    return sum(_cpu_by_pid(pid).values())


def children_cpu(pid: int) -> float:
    """User and system time of all below a process, in seconds; of such as have one thread each.

    By the scheduler's own count: in the kernel's ticks what each of many has used would be nothing.
    """
    total = 0
    for process in tree(pid)[1:]:
        with contextlib.suppress(OSError):
            total += int(Path(f"/proc/{process.pid}/schedstat").read_text().split()[0])
    return total / 1e9


async def rest() -> None:
    """Wait until all that this process has started rests; raises NeverRests after 20 s."""
    deadline = time.monotonic() + _REST_TIMEOUT
    before = _cpu_by_pid(os.getpid())
    while time.monotonic() < deadline:
        await asyncio.sleep(_WINDOW)
        now = _cpu_by_pid(os.getpid())
        # Our own time does not count: it is spent here.
        used = sum(now[pid] - before.get(pid, 0.0) for pid in now if pid != os.getpid())
        if used <= _RESTING and set(now) == set(before):
            return
        before = now
    raise NeverRests("The processes of the benchmark do not come to rest; is the machine busy?")


def _cpu_by_pid(pid: int) -> dict[int, float]:
    found = {}
    for process in tree(pid):
        with contextlib.suppress(psutil.NoSuchProcess):
            times = process.cpu_times()
            found[process.pid] = float(times.user + times.system)
    return found
