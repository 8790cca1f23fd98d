"""Fills an empty directory from an archive that may be hostile: nothing is made outside or twice."""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

from warmline_service.store._archive_bounds import ArchiveRefused, Meter

_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_NEW_FILE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC


class TreeWriter:
    """Every name is made in the descriptor of its directory, so no link on the way counts."""

    def __init__(self, root: int, meter: Meter) -> None:
        self._meter = meter
        # From the top to where the last member was; members come in an order that makes it long.
        self._open: list[tuple[str, int]] = [("", root)]
        self._seen: set[tuple[str, ...]] = set()
        self._folders: dict[tuple[str, ...], tuple[int, int]] = {}
        self._implied: set[tuple[str, ...]] = set()

    def directory(self, parts: tuple[str, ...], mode: int, mtime: int) -> None:
        """A directory; it gets its time when all is in it."""
        self._once(parts)
        if parts not in self._implied:
            with _refusing(parts):
                os.mkdir(parts[-1], 0o700, dir_fd=self._enter(parts[:-1]))
        self._folders[parts] = (mode & 0o755 | 0o700, mtime)

    def file(self, parts: tuple[str, ...], mode: int, mtime: int, data: Iterable[bytes]) -> None:
        """A file with this content: no setuid, no write by others."""
        self._once(parts)
        with _refusing(parts):
            new = os.open(parts[-1], _NEW_FILE, 0o600, dir_fd=self._enter(parts[:-1]))
        with os.fdopen(new, "wb") as file:
            for chunk in data:
                file.write(chunk)
            file.flush()
            os.fchmod(new, mode & 0o755 | 0o600)
            os.utime(new, (mtime, mtime))

    def link(self, parts: tuple[str, ...], target: str, mtime: int) -> None:
        """A symlink whose target was found to stay inside."""
        self._once(parts)
        folder = self._enter(parts[:-1])
        with _refusing(parts):
            os.symlink(target, parts[-1], dir_fd=folder)
        os.utime(parts[-1], (mtime, mtime), dir_fd=folder, follow_symlinks=False)

    def finish(self) -> None:
        """Give directories their modes and times."""
        for parts, (mode, mtime) in sorted(self._folders.items()):
            self._meter.check()
            folder = self._enter(parts)
            os.fchmod(folder, mode)
            os.utime(folder, (mtime, mtime))

    def close(self) -> None:
        """Let go of the descriptors."""
        self._leave(1)

    def _once(self, parts: tuple[str, ...]) -> None:
        if parts in self._seen:
            raise ArchiveRefused("the same name twice", "/".join(parts))
        self._seen.add(parts)

    def _enter(self, parts: tuple[str, ...]) -> int:
        common = 0
        while common < min(len(parts), len(self._open) - 1):
            if self._open[common + 1][0] != parts[common]:
                break
            common += 1
        self._leave(common + 1)
        for depth in range(common, len(parts)):
            self._open.append((parts[depth], self._folder(parts[: depth + 1])))
        return self._open[-1][1]

    def _leave(self, keep: int) -> None:
        while len(self._open) > keep:
            os.close(self._open.pop()[1])

    def _folder(self, parts: tuple[str, ...]) -> int:
        here = self._open[-1][1]
        with _refusing(parts):
            if parts not in self._seen and parts not in self._implied:
                # Other tools leave out directories; they count like any other member.
                self._meter.entry()
                os.mkdir(parts[-1], 0o700, dir_fd=here)
                self._implied.add(parts)
            return os.open(parts[-1], _FOLDER, dir_fd=here)


@contextmanager
def _refusing(parts: tuple[str, ...]) -> Iterator[None]:
    """What only the archive itself can have brought about is its fault, not the disk's."""
    try:
        yield
    except (FileExistsError, NotADirectoryError):
        raise ArchiveRefused("a name that collides with another", "/".join(parts)) from None
    except OSError as error:
        if error.errno not in {errno.ELOOP, errno.EINVAL, errno.EILSEQ, errno.ENAMETOOLONG}:
            raise
        raise ArchiveRefused("a name that cannot be made", "/".join(parts)) from None


def is_empty(root: int) -> bool:
    """Whether a directory holds nothing."""
    with os.scandir(root) as entries:
        return next(entries, None) is None


def clear(root: int) -> None:
    """Empty a directory again."""
    for name in os.listdir(root):
        try:
            os.unlink(name, dir_fd=root)
        except IsADirectoryError:
            shutil.rmtree(name, dir_fd=root)
