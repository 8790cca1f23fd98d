"""Blobs as files in a directory that is ours alone: written whole, and on the disk when `put` returns."""

from __future__ import annotations

import os
import secrets
import shutil
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from warmline_service.store._backend import new_private_file
from warmline_service.store._faults import BlobMissing

# No key begins with a dot. It is on the same file system, so a rename out of it or into it is one step.
_ASIDE = ".aside"
_CHUNK = 1024 * 1024


class FileBlobs:
    """One file for each key below `root`, 0600 in directories of 0700."""

    def __init__(self, root: Path) -> None:
        self._root = root.expanduser().absolute()
        self._aside = self._root / _ASIDE
        # A directory cannot be moved away between its making and the first rename into it.
        self._tree = threading.Lock()

    def open(self) -> None:
        """Make the directory, and clear up after a service that was killed."""
        self._root.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._root.chmod(0o700)
        if self._aside.exists():
            shutil.rmtree(self._aside)
        self._aside.mkdir(mode=0o700)
        sync_directory(self._root)

    def put(self, key: str, data: bytes | Path, timeout: float) -> None:
        """Write beside, sync, rename, sync the directory: never half of it, and not lost after."""
        del timeout
        with self._written_aside(data) as made, self._tree:
            path = self._make_parents(key)
            made.replace(path)
            sync_directory(path.parent)

    def get(self, key: str, timeout: float) -> bytes:
        """Read the file."""
        del timeout
        with self._reading(key) as file:
            return file.read()

    def get_to(self, key: str, path: Path, timeout: float) -> None:
        """Copy the file; not synced, because this copy is not the only one."""
        del timeout
        with self._reading(key) as source, replacing(path) as made, made.open("wb") as target:
            shutil.copyfileobj(source, target, _CHUNK)

    def delete(self, key: str, timeout: float) -> None:
        """Unlink the file."""
        del timeout
        path = self._root / key
        with self._tree:
            if path.exists():
                path.unlink()
                sync_directory(path.parent)

    def delete_prefix(self, prefix: str, timeout: float) -> None:
        """Move the directory out of sight in one step, then remove it."""
        del timeout
        folder = self._root / prefix
        doomed = self._aside / secrets.token_hex(8)
        with self._tree:
            if not folder.exists():
                self._check_root()
                return
            folder.rename(doomed)
            sync_directory(folder.parent)
        shutil.rmtree(doomed)

    def exists(self, key: str, timeout: float) -> bool:
        """Whether the file is there."""
        del timeout
        found = (self._root / key).is_file()
        if not found:
            self._check_root()
        return found

    def close(self) -> None:
        """Nothing is held open."""

    @contextmanager
    def _written_aside(self, data: bytes | Path) -> Iterator[Path]:
        path = self._aside / secrets.token_hex(8)
        try:
            with new_private_file(path) as file:
                _write(file, data)
                file.flush()
                os.fsync(file.fileno())
            yield path
        finally:
            path.unlink(missing_ok=True)

    def _make_parents(self, key: str) -> Path:
        path = self._root
        *folders, name = key.split("/")
        for folder in folders:
            path /= folder
            if not path.exists():
                path.mkdir(mode=0o700)
                sync_directory(path.parent)
        return path / name

    @contextmanager
    def _reading(self, key: str) -> Iterator[BinaryIO]:
        try:
            file = _open_to_read(self._root / key)
        except FileNotFoundError:
            self._check_root()
            raise BlobMissing(key) from None
        with file:
            yield file

    def _check_root(self) -> None:
        # A disk that is not mounted is no reason to say that nothing was ever kept.
        self._aside.stat()


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A private file beside `path`, to be written; it takes its place when that went well."""
    made = path.with_name(f".{path.name[:100]}.{secrets.token_hex(8)}")
    new_private_file(made).close()
    try:
        yield made
        made.replace(path)
    finally:
        made.unlink(missing_ok=True)


def _write(file: BinaryIO, data: bytes | Path) -> None:
    if isinstance(data, bytes):
        file.write(data)
        return
    with _open_to_read(data) as source:
        shutil.copyfileobj(source, file, _CHUNK)


def _open_to_read(path: Path) -> BinaryIO:
    return os.fdopen(os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC), "rb")


def sync_directory(directory: Path) -> None:
    """What was made, renamed or removed in it outlives a power cut."""
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
