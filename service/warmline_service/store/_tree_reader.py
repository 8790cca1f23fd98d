"""Reads a directory that untrusted code wrote, and may still be writing: no link is ever followed."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from enum import Enum

from warmline_service.store._archive_bounds import Meter
from warmline_service.store._archive_names import stays_inside

_CHUNK = 256 * 1024
_MAX_TIME = 8**11 - 1
# Gone, closed to us, or held by a lease: what untrusted code can do to a name at any moment.
_ELUSIVE = frozenset({errno.ENOENT, errno.EACCES, errno.EPERM, errno.EAGAIN, errno.ESTALE})


class Kind(Enum):
    """What an archive keeps."""

    FILE = "file"
    DIRECTORY = "directory"
    LINK = "link"


@dataclass(frozen=True)
class Entry:
    """One thing to keep; `descriptor` reads a file's content while the walk stands at it."""

    path: str
    kind: Kind
    mode: int
    mtime: int
    size: int = 0
    target: str = ""
    descriptor: int = -1


def walk(root: int, meter: Meter) -> Generator[Entry]:
    """Everything below the directory `root` that can be kept, sorted, each directory before its content.

    Sockets, FIFOs, devices, other file systems, links that could lead out and what cannot be read
    are passed over and counted.
    """
    return _Walk(root, meter).below(root, "", 0)


def content(entry: Entry, meter: Meter) -> Iterator[bytes]:
    """Exactly `entry.size` bytes: a file that grows is cut, one that shrinks is filled up with zeros."""
    left = entry.size
    while left:
        meter.check()
        data = os.read(entry.descriptor, min(left, _CHUNK)) or bytes(min(left, _CHUNK))
        left -= len(data)
        yield data


class _Walk:
    def __init__(self, root: int, meter: Meter) -> None:
        self._device = os.fstat(root).st_dev
        self._meter = meter

    def below(self, folder: int, prefix: str, depth: int) -> Generator[Entry]:
        for name in self._names(folder):
            self._meter.place(prefix + name, depth + 1)
            with _held(name, folder) as held:
                found = None if held is None else os.fstat(held)
                if held is None or found is None:
                    self._meter.skipped += 1
                elif stat.S_ISREG(found.st_mode):
                    yield from self._file(held, found, prefix + name)
                elif stat.S_ISDIR(found.st_mode):
                    yield from self._directory(held, found, prefix + name, depth + 1)
                elif stat.S_ISLNK(found.st_mode):
                    yield from self._link(held, found, prefix + name, depth)
                else:
                    self._meter.skipped += 1

    def _names(self, folder: int) -> list[str]:
        names = []
        with os.scandir(folder) as entries:
            for entry in entries:
                # Counted before they are all in memory.
                self._meter.entry()
                names.append(entry.name)
        return sorted(names, key=os.fsencode)

    def _file(self, held: int, found: os.stat_result, path: str) -> Iterator[Entry]:
        with _reopened(held, os.O_NONBLOCK | os.O_NOCTTY) as descriptor:
            if descriptor is None:
                self._meter.skipped += 1
                return
            self._meter.file(found.st_size)
            mode = found.st_mode & 0o755 | 0o600
            yield Entry(
                path, Kind.FILE, mode, _time(found), size=found.st_size, descriptor=descriptor
            )

    def _directory(
        self, held: int, found: os.stat_result, path: str, depth: int
    ) -> Iterator[Entry]:
        if found.st_dev != self._device:
            self._meter.skipped += 1
            return
        yield Entry(path, Kind.DIRECTORY, found.st_mode & 0o755 | 0o700, _time(found))
        with _reopened(held, os.O_DIRECTORY) as descriptor:
            if descriptor is None:
                self._meter.skipped += 1
                return
            yield from self.below(descriptor, path + "/", depth)

    def _link(self, held: int, found: os.stat_result, path: str, depth: int) -> Iterator[Entry]:
        target = os.readlink("", dir_fd=held)
        if not stays_inside(target, depth):
            self._meter.skipped += 1
            return
        yield Entry(path, Kind.LINK, 0o777, _time(found), target=target)


def _time(found: os.stat_result) -> int:
    return max(0, min(int(found.st_mtime), _MAX_TIME))


@contextmanager
def _held(name: str, folder: int) -> Iterator[int | None]:
    """What has this name right now, without opening it: a FIFO or a device notices nothing."""
    with _descriptor(name, os.O_PATH | os.O_NOFOLLOW, folder) as held:
        yield held


@contextmanager
def _reopened(held: int, flags: int) -> Iterator[int | None]:
    """The very same thing, whatever has its name by now, open for reading."""
    with _descriptor(f"/proc/self/fd/{held}", os.O_RDONLY | flags, None) as descriptor:
        yield descriptor


@contextmanager
def _descriptor(path: str, flags: int, folder: int | None) -> Iterator[int | None]:
    try:
        descriptor = os.open(path, flags | os.O_CLOEXEC, dir_fd=folder)
    except OSError as error:
        if error.errno not in _ELUSIVE:
            raise
        yield None
        return
    try:
        yield descriptor
    finally:
        os.close(descriptor)
