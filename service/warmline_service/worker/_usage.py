"""What a process and all below it use: memory, and room on the disk."""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

_PROC = Path("/proc")
# What `st_blocks` counts in.
_BLOCK = 512


@dataclass(frozen=True)
class Stored:
    """What is stored: bytes on the disk, and how many files and directories."""

    bytes: int = 0
    files: int = 0


def tree_memory(pid: int) -> int:
    """Bytes of memory (PSS) of a process and all below it; 0 when it is gone."""
    return sum(map(_pss, tree(pid)))


def tree_private(pid: int) -> int:
    """Bytes of memory that a process and all below it have for themselves; cheaper to know than PSS."""
    return sum(map(_private, tree(pid)))


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


def stored_unnamed(pid: int) -> int:
    """Bytes of files that have no name any more, and that a process of a tree holds open."""
    held = {
        (about.st_dev, about.st_ino): about.st_blocks * _BLOCK
        for each in tree(pid)
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
    with contextlib.suppress(OSError):
        for name in os.listdir(_PROC / str(pid) / "fd"):  # noqa: PTH208  # there may be thousands
            with contextlib.suppress(OSError):
                yield (_PROC / str(pid) / "fd" / name).stat()


def _children(pid: int) -> list[int]:
    found: list[int] = []
    with contextlib.suppress(OSError):
        for task in (_PROC / str(pid) / "task").iterdir():
            found += map(int, (task / "children").read_text().split())
    return found


def _private(pid: int) -> int:
    return _kilobytes(_PROC / str(pid) / "status", ("RssAnon:", "RssShmem:"))


def _pss(pid: int) -> int:
    return _kilobytes(_PROC / str(pid) / "smaps_rollup", ("Pss:",))


def _kilobytes(path: Path, names: tuple[str, ...]) -> int:
    total = 0
    with contextlib.suppress(OSError):
        for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
            if line.startswith(names):
                total += int(line.split()[1]) * 1024
    return total
