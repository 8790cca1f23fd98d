"""The CLI's debug log, read as it grows: a bound for each time, and nothing secret in it."""

from __future__ import annotations

import os
import stat
import threading
from collections.abc import Collection
from pathlib import Path

# What is given at a time; of more the end counts.
MOST_BYTES = 256 * 1024
# The session's own tools can put anything in its place.
_FLAGS = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


class DebugLog:
    """What a process writes to `path`; none of `secrets` is given. Its methods block."""

    def __init__(self, path: Path, secrets: Collection[str]) -> None:
        self._path = path
        self._secrets = sorted(secrets, key=len, reverse=True)
        self._offset = 0
        self._lock = threading.Lock()
        # What was read when the process ended: its file does not stay.
        self._last: tuple[str, int] | None = None

    def read(self) -> tuple[str, int]:
        """What was written since it was read last, and how many bytes of it are left out."""
        with self._lock:
            if self._last is None:
                return self._read()
            last, self._last = self._last, ("", 0)
            return last

    def seal(self) -> None:
        """Keep what there is to read: the process has ended, and its file goes."""
        with self._lock:
            self._last = self._read()

    def _read(self) -> tuple[str, int]:
        try:
            file = os.open(self._path, _FLAGS)
        except OSError:
            return "", 0  # Nothing has been written yet, or something else is in its place.
        try:
            about = os.fstat(file)
            if not stat.S_ISREG(about.st_mode):
                return "", 0
            start = self._offset if self._offset <= about.st_size else 0
            dropped = max(0, about.st_size - start - MOST_BYTES)
            data = os.pread(file, MOST_BYTES, start + dropped)
            self._offset = start + dropped + len(data)
        finally:
            os.close(file)
        if dropped:
            # A part of a line says little, and could be a part of a secret.
            _, _, whole = data.partition(b"\n")
            dropped += len(data) - len(whole)
            data = whole
        text = data.decode(errors="replace")
        for secret in self._secrets:
            text = text.replace(secret, "[hidden]")
        return text, dropped
