"""Files of a workspace one by one, in a directory that is ours alone."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from warmline_service.errors import Reason, WarmlineError

_CHUNK = 1024 * 1024


@dataclass(frozen=True)
class PlacedFile:
    """A file that is to be there; `path` was checked."""

    path: str
    data: bytes


@dataclass(frozen=True)
class FileInfo:
    """A file; `size` is bytes, `modified` Unix time."""

    path: str
    size: int
    modified: float


def write_files(folder: Path, files: Sequence[PlacedFile]) -> None:
    """Make a new directory with these files. Raises OSError."""
    folder.mkdir(0o700)
    for file in files:
        path = folder / file.path
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(file.data)


def list_files(folder: Path) -> list[FileInfo]:
    """The regular files below a directory, in the order of their paths."""
    found: list[FileInfo] = []
    for place, _, names in os.walk(folder):
        for name in names:
            path = Path(place, name)
            about = path.lstat()
            if stat.S_ISREG(about.st_mode):
                where = path.relative_to(folder).as_posix()
                found.append(FileInfo(where, about.st_size, about.st_mtime))
    return sorted(found, key=lambda file: file.path)


def check_file(folder: Path, path: str) -> Path:
    """The place of a regular file to which no link leads; raises FILE_NOT_FOUND."""
    place = folder
    for name in path.split("/"):
        place = place / name
        if place.is_symlink():
            raise _no_file()
    if not place.is_file():
        raise _no_file()
    return place


def chunks_of(path: Path) -> Iterator[bytes]:
    """What a file holds, in pieces of at most 1 MiB. Raises OSError."""
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK):
            yield chunk


def _no_file() -> WarmlineError:
    return WarmlineError(Reason.FILE_NOT_FOUND, "The session's workspace has no such file.")
