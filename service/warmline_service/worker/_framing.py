"""Bytes from a pipe into whole lines, in time linear in the bytes however they arrive."""

from __future__ import annotations


class LineTooLong(Exception):  # noqa: N818  # named for what happened to the line
    """A line went over its bound before it ended."""

    def __init__(self, max_bytes: int) -> None:
        super().__init__(f"a line is longer than {max_bytes} bytes")


class LineSplitter:
    """Gathers lines of at most `max_bytes` bytes, newline not counted; blank lines are dropped."""

    def __init__(self, max_bytes: int) -> None:
        self._max = max_bytes
        self._held: list[bytes] = []
        self._held_bytes = 0

    def feed(self, data: bytes) -> list[bytes]:
        """The lines that `data` completes; raises LineTooLong, which is the splitter's end."""
        lines = data.split(b"\n")
        if self._held or len(data) > self._max:
            return self._feed_slowly(lines)
        # The usual case: no line began before this data, and none of it can be too long.
        last = lines.pop()
        if last:
            self._hold(last)
        return [line for line in lines if line and not line.isspace()]

    @property
    def held_bytes(self) -> int:
        """Bytes of a line that has not ended yet."""
        return self._held_bytes

    def _feed_slowly(self, pieces: list[bytes]) -> list[bytes]:
        first, *more = pieces
        self._hold(first)
        if not more:
            return []
        lines = [b"".join(self._held), *more[:-1]]
        self._held.clear()
        self._held_bytes = 0
        self._hold(more[-1])
        if max(map(len, lines)) > self._max:
            raise LineTooLong(self._max)
        return [line for line in lines if line and not line.isspace()]

    def _hold(self, piece: bytes) -> None:
        self._held_bytes += len(piece)
        if self._held_bytes > self._max:
            self._held.clear()
            raise LineTooLong(self._max)
        if piece:
            self._held.append(piece)
