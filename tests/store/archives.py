"""For tests of archives: hostile ones by hand, and what a tree looks like."""

import io
import os
import stat
import tarfile
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import zstandard
from warmline_service.store import ArchiveLimits, Archives

Picture = dict[bytes, tuple[str, int, bytes]]
LIMITS = ArchiveLimits(
    total_bytes=1024 * 1024, members=200, file_bytes=512 * 1024, depth=8, seconds=20.0
)


@asynccontextmanager
async def small_archives(limits: ArchiveLimits = LIMITS) -> AsyncIterator[Archives]:
    """With bounds that a test can reach."""
    archives = Archives(limits)
    yield archives
    await archives.aclose()


def picture(root: Path) -> Picture:
    """Every entry's kind, mode and content, by its name as it is on the disk."""
    return dict(_entries(os.fsencode(root), b""))


def _entries(root: bytes, prefix: bytes) -> Iterator[tuple[bytes, tuple[str, int, bytes]]]:
    for name in sorted(os.listdir(root)):  # noqa: PTH208  # names are bytes
        path = os.path.join(root, name)  # noqa: PTH118  # names are bytes
        mode = os.lstat(path).st_mode
        if stat.S_ISLNK(mode):
            yield prefix + name, ("link", 0, os.readlink(path))  # noqa: PTH115  # names are bytes
        elif stat.S_ISDIR(mode):
            yield prefix + name, ("directory", mode & 0o7777, b"")
            yield from _entries(path, prefix + name + b"/")
        else:
            with open(path, "rb") as file:  # noqa: PTH123  # names are bytes
                yield prefix + name, ("file", mode & 0o7777, file.read())


def file(name: str, data: bytes = b"content", **fields: object) -> tuple[tarfile.TarInfo, bytes]:
    """A member that is a file."""
    info = tarfile.TarInfo(name)
    info.size = len(data)
    for field, value in fields.items():
        setattr(info, field, value)
    return info, data


def other(name: str, type_: bytes, target: str = "") -> tuple[tarfile.TarInfo, bytes]:
    """A member that is something else."""
    info = tarfile.TarInfo(name)
    info.type, info.linkname, info.mode = type_, target, 0o755
    return info, b""


def tar(*members: tuple[tarfile.TarInfo, bytes], format_: int = tarfile.GNU_FORMAT) -> bytes:
    """An archive as another tool could make it."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=format_) as archive:
        for info, data in members:
            archive.addfile(info, io.BytesIO(data))
    return buffer.getvalue()


def compressed(data: bytes, **options: int) -> bytes:
    """One zstd frame."""
    parameters = zstandard.ZstdCompressionParameters(**options)
    return zstandard.ZstdCompressor(compression_params=parameters).compress(data)
