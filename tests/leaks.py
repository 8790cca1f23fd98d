"""What a test may not leave behind, and how to find it."""

import asyncio
import ctypes
import os
import stat
from collections.abc import Iterator
from pathlib import Path

import psutil

# Seconds that the last steps of a clean end may take: a reaped child, a cancelled task.
GRACE = float(os.environ.get("LEAK_GRACE", "2"))
_PR_SET_CHILD_SUBREAPER = 36
# What the whole run shares, whichever test asked for it first.
_of_the_run: set[psutil.Process] = set()


def adopt_orphans() -> None:
    """Become the parent of every descendant whose parent dies, so that none escapes the search."""
    if ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0):
        raise OSError(ctypes.get_errno(), "PR_SET_CHILD_SUBREAPER")


def children() -> set[psutil.Process]:
    """Every descendant of this process, without those that are kept for the run."""
    return set(psutil.Process().children(recursive=True)) - _of_the_run


def keep_for_the_run(pid: int) -> None:
    """This process and those it has now are no test's own, and may outlive any."""
    process = psutil.Process(pid)
    _of_the_run.update({process, *process.children(recursive=True)})


async def tasks_left(before: set[asyncio.Task[object]]) -> list[str]:
    """Cancel every task that was made since `before` and does not end by itself; their names."""
    left = asyncio.all_tasks() - before - {asyncio.current_task()}
    if left:
        _, left = await asyncio.wait(left, timeout=GRACE)
    names = sorted(f"{task.get_name()}: {task.get_coro()}" for task in left)
    for task in left:
        task.cancel()
    if left:
        await asyncio.wait(left, timeout=GRACE)
    return names


def children_left(before: set[psutil.Process]) -> list[str]:
    """Kill every descendant born since `before` that does not end by itself; their names."""
    new = children() - before
    if not new:
        return []
    # Collects exit statuses too: an orphan that we adopted has nobody else to do it.
    _, left = psutil.wait_procs(new, timeout=GRACE)
    names = sorted(_describe(process) for process in left)
    for process in left:
        process.kill()
    psutil.wait_procs(left, timeout=GRACE)
    return names


def _describe(process: psutil.Process) -> str:
    try:
        return f"{process.pid}: {' '.join(process.cmdline())[:200] or process.name()}"
    except psutil.Error:
        return f"{process.pid}"


def entries_left(root: Path) -> list[str]:
    """Whatever is in `root`, which should be empty."""
    return sorted(str(path.relative_to(root)) for path in root.rglob("*"))


def remains_of_slots(root: Path) -> list[str]:
    """Sockets, and slot directories, that are left below `root`."""
    return sorted(str(path.relative_to(root)) for path in _remains(root))


def _remains(root: Path) -> Iterator[Path]:
    for folder, folders, files in os.walk(root):
        here = Path(folder)
        if here.name == "slots":
            yield from (here / name for name in folders)
        for name in files:
            if stat.S_ISSOCK((here / name).lstat().st_mode):
                yield here / name
