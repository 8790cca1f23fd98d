"""The end of what a process wrote to stderr, within a bound."""

from __future__ import annotations

import unicodedata


class StderrTail:
    """Keeps the last `max_bytes` bytes."""

    def __init__(self, max_bytes: int) -> None:
        self._max = max_bytes
        self._kept = bytearray()

    def feed(self, data: bytes) -> None:
        """Take more; what is over the bound goes, oldest first."""
        self._kept += data[-self._max :]
        del self._kept[: max(0, len(self._kept) - self._max)]

    def text(self) -> str:
        """What is kept, safe to print: no control characters but newline and tab."""
        decoded = self._kept.decode("utf-8", "replace").strip()
        return "".join(c for c in decoded if c in "\n\t" or unicodedata.category(c)[0] != "C")
