"""How much an archive may hold, what else is refused, and who counts it."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass
from typing import Literal

MIB = 1024 * 1024

Limit = Literal["total_bytes", "members", "file_bytes", "depth", "path_bytes", "seconds"]


@dataclass(frozen=True)
class ArchiveLimits:
    """Bounds on one archive, the same for making it and for restoring it."""

    total_bytes: int = 4096 * MIB
    members: int = 200_000
    file_bytes: int = 1024 * MIB
    depth: int = 64
    path_bytes: int = 4096
    seconds: float = 300.0


class ArchiveTooLarge(Exception):  # noqa: N818  # named for what is the case
    """A bound was passed; `limit` says which, `maximum` how much it allows."""

    def __init__(self, limit: Limit, maximum: float) -> None:
        super().__init__(f"more than {limit} = {maximum:g} allows")
        self.limit = limit
        self.maximum = maximum


class ArchiveRefused(Exception):  # noqa: N818  # named for what is the case
    """An archive that is damaged, or that none of ours would be; `why` may be shown to callers."""

    def __init__(self, why: str, member: str = "") -> None:
        where = f": {member[:200]!r}" if member else ""
        super().__init__(f"{why}{where}")
        self.why = why
        self.member = member


class ArchiveAbandoned(Exception):  # noqa: N818  # named for what is the case
    """Nobody waits for the result any more."""


@dataclass(frozen=True)
class ArchiveStats:
    """What went in or out; `skipped` are entries that cannot or must not be kept."""

    members: int
    content_bytes: int
    archive_bytes: int
    skipped: int


class Meter:
    """Counts against the limits, and ends the work when they or its caller's patience are used up."""

    def __init__(self, limits: ArchiveLimits, stop: threading.Event) -> None:
        self.limits = limits
        self.members = 0
        self.content_bytes = 0
        self.skipped = 0
        self._bytes = 0
        self._entries = 0
        self._stop = stop
        self._deadline = time.monotonic() + limits.seconds

    def entry(self) -> None:
        """One more name, whether it is kept or not."""
        self.check()
        self._entries += 1
        if self._entries > self.limits.members:
            raise ArchiveTooLarge("members", self.limits.members)

    def place(self, path: str, depth: int) -> None:
        """A name so deep and so long."""
        if depth > self.limits.depth:
            raise ArchiveTooLarge("depth", self.limits.depth)
        if len(path.encode("utf-8", "surrogateescape")) > self.limits.path_bytes:
            raise ArchiveTooLarge("path_bytes", self.limits.path_bytes)

    def file(self, size: int) -> None:
        """A file's content, before any of it is read."""
        if size > self.limits.file_bytes:
            raise ArchiveTooLarge("file_bytes", self.limits.file_bytes)
        self.content_bytes += size
        self.volume(size)

    def volume(self, size: int) -> None:
        """Bytes of any kind."""
        self._bytes += size
        if self._bytes > self.limits.total_bytes:
            raise ArchiveTooLarge("total_bytes", self.limits.total_bytes)

    def check(self) -> None:
        """Call it often."""
        if self._stop.is_set():
            raise ArchiveAbandoned
        if time.monotonic() > self._deadline:
            raise ArchiveTooLarge("seconds", self.limits.seconds)

    def stats(self, archive_bytes: int) -> ArchiveStats:
        """What it came to."""
        return ArchiveStats(self.members, self.content_bytes, archive_bytes, self.skipped)
