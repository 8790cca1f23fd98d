"""A workspace as one compressed file, and back; neither the workspace nor the archive is trusted."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TypeVar

import zstandard

from warmline_service.store._archive_bounds import (
    ArchiveLimits,
    ArchiveRefused,
    ArchiveStats,
    Meter,
)
from warmline_service.store._archive_names import member_parts, stays_inside
from warmline_service.store._backend import new_private_file
from warmline_service.store._faults import content_unavailable
from warmline_service.store._tar import END, TarReader, header, padding
from warmline_service.store._tree_reader import content, walk
from warmline_service.store._tree_writer import TreeWriter, clear, is_empty

T = TypeVar("T")

_LEVEL = 3
# What zstd's levels up to 19 use; an archive that wants more wants our memory.
_WINDOW = 8 * 1024 * 1024
# Each can take a core for minutes, so more would only share it and hold more memory.
_THREADS = 2
# From being told to stop until a thread has: one chunk of one file, and removing what it made.
_STOP_TIMEOUT = 10.0


class Archives:
    """Makes archives and restores them, in threads of its own, a few at a time.

    ArchiveTooLarge and ArchiveRefused say what is wrong with the workspace or the archive;
    STORAGE_UNAVAILABLE that the disk failed.
    """

    def __init__(self, limits: ArchiveLimits | None = None) -> None:
        self._limits = limits or ArchiveLimits()
        self._threads = ThreadPoolExecutor(_THREADS, thread_name_prefix="archives")

    async def pack(self, directory: Path, target: Path) -> ArchiveStats | None:
        """Write all that can be kept of `directory` to the new file `target`.

        None, and no file, where there is nothing to keep. The same content makes the same bytes.
        """
        return await self._run(lambda meter: _pack(directory, target, meter))

    async def unpack(self, source: Path, directory: Path) -> ArchiveStats:
        """Fill the empty `directory` from an archive: with all of it, or with nothing."""
        return await self._run(lambda meter: _unpack(source, directory, meter))

    async def aclose(self) -> None:
        """Take no more work."""
        self._threads.shutdown(wait=False, cancel_futures=True)

    async def _run(self, work: Callable[[Meter], T]) -> T:
        stop = threading.Event()
        loop = asyncio.get_running_loop()
        running = loop.run_in_executor(self._threads, lambda: work(Meter(self._limits, stop)))
        try:
            # Twice: it may have to wait for its turn.
            async with asyncio.timeout(2 * self._limits.seconds):
                return await asyncio.shield(running)
        except OSError as error:
            raise content_unavailable() from error
        finally:
            if not running.done():
                # Nobody may remove the directory while a thread is still in it.
                stop.set()
                running.add_done_callback(_retrieve)
                await asyncio.wait({running}, timeout=_STOP_TIMEOUT)


def _retrieve(running: asyncio.Future[T]) -> None:
    """Its failure was ordered, and nobody waits for it."""
    if not running.cancelled():
        running.exception()


def _pack(directory: Path, target: Path, meter: Meter) -> ArchiveStats | None:
    with _opened(directory) as root, new_private_file(target) as file, _kept(target) as keep:
        compressor = zstandard.ZstdCompressor(level=_LEVEL, write_checksum=True)
        with (
            compressor.stream_writer(file, closefd=False) as out,
            closing(walk(root, meter)) as entries,
        ):
            for entry in entries:
                meter.members += 1
                out.write(header(entry))
                for chunk in content(entry, meter):
                    out.write(chunk)
                out.write(padding(entry.size))
            out.write(END)
        file.flush()
        if not meter.members:
            return None
        keep()
        return meter.stats(file.tell())


def _unpack(source: Path, directory: Path, meter: Meter) -> ArchiveStats:
    with _opened(directory) as root, source.open("rb") as file:
        if not is_empty(root):
            raise ValueError("an archive is restored into an empty directory")
        decompressor = zstandard.ZstdDecompressor(max_window_size=_WINDOW)
        stream = decompressor.stream_reader(file, read_across_frames=True, closefd=False)
        writer = TreeWriter(root, meter)
        try:
            _restore(TarReader(stream, meter), writer, meter)
            writer.finish()
        except BaseException:
            writer.close()
            clear(root)
            raise
        writer.close()
        return meter.stats(os.fstat(file.fileno()).st_size)


def _restore(reader: TarReader, writer: TreeWriter, meter: Meter) -> None:
    for info in reader.members():
        meter.entry()
        parts = member_parts(info.name)
        meter.place(info.name, len(parts))
        if not parts and info.isdir():
            continue
        if not parts:
            raise ArchiveRefused("a member without a name")
        meter.members += 1
        mtime = int(info.mtime)
        if info.isdir():
            writer.directory(parts, info.mode, mtime)
        elif info.issym():
            if not stays_inside(info.linkname, len(parts) - 1):
                raise ArchiveRefused("a link that could lead out", info.name)
            writer.link(parts, info.linkname, mtime)
        else:
            meter.file(info.size)
            writer.file(parts, info.mode, mtime, reader.content(info))


@contextmanager
def _opened(directory: Path) -> Iterator[int]:
    flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
    root = os.open(directory, flags)
    try:
        yield root
    finally:
        os.close(root)


@contextmanager
def _kept(target: Path) -> Iterator[Callable[[], None]]:
    """A file that is removed again unless the caller says that it is wanted."""
    wanted = threading.Event()
    try:
        yield wanted.set
    finally:
        if not wanted.is_set():
            target.unlink()
