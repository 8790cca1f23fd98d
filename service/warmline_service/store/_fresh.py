"""Events that are in the log and have no rows of their own yet, as the service remembers them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from warmline_service.store._rows import EventRow

# Of an event without its body, in bytes: the measured size of its objects, rounded up.
_OVERHEAD = 400


class Fresh:
    """What has to be settled, by sessions, in the order of their seqs.

    Of each session it is the end: nothing that was stored later has a row. `size` is in bytes of memory.
    """

    def __init__(self) -> None:
        self._rows: dict[str, list[EventRow]] = {}
        self.count = 0
        self.size = 0

    def __repr__(self) -> str:
        return f"<Fresh events={self.count} sessions={len(self._rows)}>"

    def add(self, rows: Iterable[EventRow]) -> None:
        """These have been stored."""
        for row in rows:
            self._rows.setdefault(row.session_id, []).append(row)
            self.count += 1
            self.size += _size(row)

    def of(self, session_id: str) -> Sequence[EventRow]:
        """A session's events, as they are now."""
        return tuple(self._rows.get(session_id, ()))

    def settled(self, rows: Iterable[EventRow]) -> None:
        """These have rows of their own, and so has all that was before them in their sessions."""
        last: dict[str, int] = {}
        for row in rows:
            last[row.session_id] = max(row.seq, last.get(row.session_id, 0))
        for session_id, seq in last.items():
            left = [row for row in self._rows.get(session_id, ()) if row.seq > seq]
            self._replace(session_id, left)

    def forget(self, session_id: str) -> None:
        """A session is gone."""
        self._replace(session_id, [])

    def portions(self, size: int) -> Iterator[list[EventRow]]:
        """All that is there when each is asked for, whole sessions at a time: about `size` events each."""
        portion: list[EventRow] = []
        for session_id in list(self._rows):
            portion += self.of(session_id)
            if len(portion) >= size:
                yield portion
                portion = []
        if portion:
            yield portion

    def _replace(self, session_id: str, left: list[EventRow]) -> None:
        before = self._rows.pop(session_id, [])
        self.count += len(left) - len(before)
        self.size += sum(map(_size, left)) - sum(map(_size, before))
        if left:
            self._rows[session_id] = left


def _size(row: EventRow) -> int:
    return len(row.body) + _OVERHEAD
