"""A log of events beside the SQLite file: where they are committed until they have rows of their own.

A commit to SQLite that adds a few events to many sessions changes a page for each of them, and waits for its
one writer. Here it is one write at the end of a file, which waits for nobody. See decision 23.
"""

from __future__ import annotations

import os
import struct
import zlib
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import msgspec

from warmline_service.store._database import in_thread
from warmline_service.store._faults import StoreMisconfigured
from warmline_service.store._file_blobs import sync_directory
from warmline_service.store._rows import EventRow

_SUFFIX = ".log"
# Before each record: how long it is, and its CRC-32.
_HEADER = struct.Struct(">II")
# Each write is on the disk when it returns.
_FLAGS = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND | os.O_DSYNC | os.O_CLOEXEC


class EventLog:
    """Files in a directory of its own, each written once from its beginning to its end.

    One process has it. Raises STORAGE_UNAVAILABLE where nothing can be written; what was
    not stored then may be stored all the same, so it has to be said again.
    """

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._file: int | None = None
        self._size = 0
        self._number = 0
        self._thread = ThreadPoolExecutor(1, "event-log")

    async def append(self, rows: Sequence[EventRow], timeout: float) -> None:
        """Store events, all or none."""
        body = msgspec.msgpack.encode(rows)
        record = _HEADER.pack(len(body), zlib.crc32(body)) + body
        await in_thread(self._thread, lambda: self._append(record), timeout)

    async def close_file(self, timeout: float) -> list[Path]:
        """Begin another file with the next event; gives those that there are, the earliest first."""
        return await in_thread(self._thread, self._close_file, timeout)

    async def remove(self, files: Sequence[Path], timeout: float) -> None:
        """All that is in these files has rows of its own."""

        def remove() -> None:
            for each in files:
                each.unlink(missing_ok=True)

        await in_thread(self._thread, remove, timeout)

    async def read(self, file: Path, timeout: float) -> list[EventRow]:
        """What a file holds. A record that is not whole was never stored, nor was one behind it.

        Raises StoreMisconfigured for a file of another version.
        """
        data = await in_thread(self._thread, file.read_bytes, timeout)
        try:
            groups = [msgspec.msgpack.decode(each, type=list[EventRow]) for each in _records(data)]
        except msgspec.MsgspecError:
            raise StoreMisconfigured(f"store: {file} is of another version") from None
        return [row for group in groups for row in group]

    def shut_down(self) -> None:
        """Close the file and end the thread, after what it does. Blocks."""
        self._thread.submit(self._close)
        self._thread.shutdown(wait=True)

    def _append(self, record: bytes) -> None:
        if self._file is None:
            self._open()
        assert self._file is not None
        left = memoryview(record)
        try:
            while left:
                left = left[os.write(self._file, left) :]
        except OSError:
            self._give_up()
            raise
        self._size += len(record)

    def _open(self) -> None:
        if not self._directory.is_dir():
            self._directory.mkdir(mode=0o700)
            sync_directory(self._directory.parent)
        self._number = max([self._number, *map(_number, self._files())]) + 1
        path = self._directory / f"{self._number:016d}{_SUFFIX}"
        self._file, self._size = os.open(path, _FLAGS, 0o600), 0
        try:
            sync_directory(self._directory)
        except OSError:
            self._give_up()
            raise

    def _give_up(self) -> None:
        """Write no more to a file whose end may be no whole record."""
        assert self._file is not None
        try:
            os.ftruncate(self._file, self._size)
        except OSError:
            # Whoever reads the file stops there.
            pass
        finally:
            self._close()

    def _close_file(self) -> list[Path]:
        self._close()
        return self._files()

    def _close(self) -> None:
        if self._file is not None:
            file, self._file = self._file, None
            os.close(file)

    def _files(self) -> list[Path]:
        if not self._directory.is_dir():
            return []
        return sorted(self._directory.glob(f"*{_SUFFIX}"), key=_number)


def _number(path: Path) -> int:
    return int(path.stem) if path.stem.isdecimal() else 0


def _records(data: bytes) -> Iterator[bytes]:
    at = 0
    while at + _HEADER.size <= len(data):
        length, crc = _HEADER.unpack_from(data, at)
        at += _HEADER.size
        body = data[at : at + length]
        if len(body) < length or zlib.crc32(body) != crc:
            return
        yield body
        at += length
