"""What a process and all below it use: memory, and room on the disk."""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

# What `st_blocks` counts in.
_BLOCK = 512
_PIECE = 65536


@dataclass(frozen=True)
class Stored:
    """What is stored: bytes on the disk, and how many files and directories."""

    bytes: int = 0
    files: int = 0


def tree_memory(pid: int) -> int:
    """Bytes of memory (PSS) of a process and all below it; 0 when it is gone."""
    return sum(map(_pss, tree(pid)))


def private(pids: Iterable[int]) -> int:
    """Bytes of memory that processes have for themselves; cheaper to know than PSS."""
    return sum(map(_private, pids))


def tree(pid: int) -> list[int]:
    """A process and all below it, parents first."""
    found = [pid]
    for each in found:
        found += _children(each)
    return found


def stored_below(folders: Iterable[Path], most: Stored) -> Stored:
    """What is stored in these directories; stops counting above `most`. Follows no link."""
    total, files = 0, 0
    seen: set[tuple[int, int]] = set()
    for folder in folders:
        for about in _entries(folder):
            files += 1
            if about.st_nlink > 1 and not stat.S_ISDIR(about.st_mode):
                if (about.st_dev, about.st_ino) in seen:
                    continue
                seen.add((about.st_dev, about.st_ino))
            total += about.st_blocks * _BLOCK
            if total > most.bytes or files > most.files:
                return Stored(total, files)
    return Stored(total, files)


def stored_unnamed(pids: Iterable[int]) -> int:
    """Bytes of files that have no name any more, and that one of these processes holds open."""
    held = {
        (about.st_dev, about.st_ino): about.st_blocks * _BLOCK
        for each in pids
        for about in _open_files(each)
        if about.st_nlink == 0 and stat.S_ISREG(about.st_mode)
    }
    return sum(held.values())


def _entries(folder: Path) -> Iterator[os.stat_result]:
    todo = [os.fspath(folder)]
    while todo:
        with contextlib.suppress(OSError), os.scandir(todo.pop()) as entries:
            for entry in entries:
                with contextlib.suppress(OSError):
                    yield entry.stat(follow_symlinks=False)
                    if entry.is_dir(follow_symlinks=False):
                        todo.append(entry.path)


def _open_files(pid: int) -> Iterator[os.stat_result]:
    with contextlib.suppress(OSError), os.scandir(f"/proc/{pid}/fd") as entries:
        for entry in entries:
            with contextlib.suppress(OSError):
                yield entry.stat()


def _children(pid: int) -> list[int]:
    found: list[int] = []
    with contextlib.suppress(OSError):
        for task in os.listdir(f"/proc/{pid}/task"):  # noqa: PTH208  # a process may have dozens
            found += map(int, _read(f"/proc/{pid}/task/{task}/children").split())
    return found


def _private(pid: int) -> int:
    return _kilobytes(f"/proc/{pid}/status", (b"RssAnon:", b"RssShmem:"))


def _pss(pid: int) -> int:
    return _kilobytes(f"/proc/{pid}/smaps_rollup", (b"Pss:",))


def _kilobytes(path: str, names: tuple[bytes, ...]) -> int:
    total = 0
    with contextlib.suppress(OSError):
        for line in _read(path).splitlines():
            if line.startswith(names):
                total += int(line.split()[1]) * 1024
    return total


def _read(path: str) -> bytes:
    """A file of the kernel's; a file object for each took longer than reading it."""
    opened = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        data = b""
        while piece := os.read(opened, _PIECE):
            data += piece
        return data
    finally:
        os.close(opened)
