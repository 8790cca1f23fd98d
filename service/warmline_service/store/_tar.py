"""The tar format, as far as a workspace needs it: headers written and read one by one, within bounds.

`tarfile` decodes single headers. Its reading of whole archives is not used: it takes names, pax records
and sparse maps of any size into memory, and knows no bound.
"""

from __future__ import annotations

import math
import sys
import tarfile
from collections.abc import Iterator
from typing import Protocol

import zstandard

from warmline_service.store._archive_bounds import ArchiveRefused, Meter
from warmline_service.store._tree_reader import Entry, Kind

_BLOCK = tarfile.BLOCKSIZE
_CHUNK = 256 * 1024
# Names are bytes on the disk, and the same bytes in the archive.
_ENCODING, _ERRORS = sys.getfilesystemencoding(), "surrogateescape"
_TYPES = {Kind.FILE: tarfile.REGTYPE, Kind.DIRECTORY: tarfile.DIRTYPE, Kind.LINK: tarfile.SYMTYPE}
_KEPT = frozenset({tarfile.REGTYPE, tarfile.AREGTYPE, tarfile.DIRTYPE, tarfile.SYMTYPE})
_LONG = {tarfile.GNUTYPE_LONGNAME: b"path", tarfile.GNUTYPE_LONGLINK: b"linkpath"}
_PAX = frozenset({tarfile.XHDTYPE, tarfile.SOLARIS_XHDTYPE})
_EXTENSION_BYTES = 64 * 1024
_MAX_TIME = 8**11 - 1
# After the end come at most the rest of a record, of 10 KiB with most tools.
_TRAILER_BYTES = 1024 * 1024

END = bytes(2 * _BLOCK)


def header(entry: Entry) -> bytes:
    """A member's header: nothing in it depends on who writes it, or when."""
    info = tarfile.TarInfo(entry.path)
    info.type = _TYPES[entry.kind]
    info.mode, info.mtime = entry.mode, entry.mtime
    info.size, info.linkname = entry.size, entry.target
    return info.tobuf(tarfile.GNU_FORMAT, _ENCODING, _ERRORS)


def padding(size: int) -> bytes:
    """What fills a member's last block."""
    return bytes(-size % _BLOCK)


class Stream(Protocol):
    """Where an archive's bytes come from."""

    def read(self, size: int, /) -> bytes:
        """At most so many; none at the end."""
        ...


class TarReader:
    """Members in their order; each one's `content` has to be taken before the next."""

    def __init__(self, stream: Stream, meter: Meter) -> None:
        self._stream = stream
        self._meter = meter

    def members(self) -> Iterator[tarfile.TarInfo]:
        """Files, directories and symlinks; ArchiveRefused at anything else, and at any damage."""
        extended: dict[bytes, bytes] = {}
        while (block := self._exactly(_BLOCK)) != bytes(_BLOCK):
            self._meter.check()
            info = _decode(block)
            if info.type in _KEPT:
                yield _completed(info, extended)
                extended = {}
            elif info.type in _LONG:
                extended[_LONG[info.type]] = self._extension(info).split(b"\0")[0]
            elif info.type in _PAX:
                extended |= _records(self._extension(info))
            elif info.type == tarfile.XGLTYPE:
                # A comment, such as git's; nothing in it is about one member.
                self._extension(info)
            else:
                raise ArchiveRefused("neither a file, a directory nor a symlink", info.name)
        self._to_the_end()

    def content(self, info: tarfile.TarInfo) -> Iterator[bytes]:
        """A file's bytes."""
        left = info.size
        while left:
            self._meter.check()
            data = self._exactly(min(left, _CHUNK))
            left -= len(data)
            yield data
        self._exactly(-info.size % _BLOCK)

    def _extension(self, info: tarfile.TarInfo) -> bytes:
        if not 0 <= info.size <= _EXTENSION_BYTES:
            raise ArchiveRefused("a header that is too large", info.name)
        # Headers without members must come to an end too.
        self._meter.volume(info.size + _BLOCK)
        data = self._exactly(info.size)
        self._exactly(-info.size % _BLOCK)
        return data

    def _exactly(self, size: int) -> bytes:
        parts = []
        while size:
            part = self._read(size)
            if not part:
                raise ArchiveRefused("it ends too early")
            parts.append(part)
            size -= len(part)
        return b"".join(parts)

    def _to_the_end(self) -> None:
        # The checksum comes last.
        left = _TRAILER_BYTES
        while part := self._read(_CHUNK):
            left -= len(part)
            if left < 0 or part.strip(b"\0"):
                raise ArchiveRefused("something comes after its end")

    def _read(self, size: int) -> bytes:
        try:
            return self._stream.read(size)
        except zstandard.ZstdError as error:
            raise ArchiveRefused("it is damaged, or not compressed with zstd") from error


def _decode(block: bytes) -> tarfile.TarInfo:
    try:
        return tarfile.TarInfo.frombuf(block, _ENCODING, _ERRORS)
    except tarfile.HeaderError as error:
        raise ArchiveRefused("it is damaged, or not a tar") from error


def _completed(info: tarfile.TarInfo, extended: dict[bytes, bytes]) -> tarfile.TarInfo:
    """The member with what the headers before it said, and with no value out of range."""
    if b"path" in extended:
        info.name = extended[b"path"].decode(_ENCODING, _ERRORS)
    if b"linkpath" in extended:
        info.linkname = extended[b"linkpath"].decode(_ENCODING, _ERRORS)
    if b"size" in extended:
        info.size = int(_number(extended[b"size"]))
    mtime = _number(extended[b"mtime"]) if b"mtime" in extended else info.mtime
    info.mtime = int(max(0, min(mtime, _MAX_TIME)))
    if info.size < 0:
        raise ArchiveRefused("a size below zero", info.name)
    return info


def _number(value: bytes) -> float:
    try:
        number = float(value)
    except ValueError:
        number = math.nan
    if not math.isfinite(number):
        raise ArchiveRefused("a header with a bad number")
    return number


def _records(data: bytes) -> dict[bytes, bytes]:
    """The records of a pax header, each `LENGTH KEY=VALUE\\n`."""
    found: dict[bytes, bytes] = {}
    while data.strip(b"\0"):
        digits, space, _ = data.partition(b" ")
        if not space or not digits.isdigit() or len(digits) > len(str(_EXTENSION_BYTES)):
            raise ArchiveRefused("a damaged header")
        length = int(digits)
        key, equals, value = data[len(digits) + 1 : length - 1].partition(b"=")
        if not equals or length > len(data) or data[length - 1 : length] != b"\n":
            raise ArchiveRefused("a damaged header")
        if key.startswith(b"GNU.sparse."):
            raise ArchiveRefused("a sparse file")
        found[key] = value
        data = data[length:]
    return found
