"""Reads the log from its beginning to its end, and says where it is not what was written."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from warmline_service.audit._chain import ORIGIN, Chain
from warmline_service.store import Anchor, AuditPage, AuditRow, AuditStore

_PAGE = 500


@dataclass(frozen=True)
class Broken:
    """Where the log is not what was written: at which row, and what is wrong there."""

    seq: int
    why: str


@dataclass(frozen=True)
class Verdict:
    """What was found: rows up to `last`, after those up to `base`, which were removed; or a break."""

    base: int
    last: int
    rows: int
    broken: Broken | None = None


async def verify(
    store: AuditStore,
    chain: Chain,
    noted: Anchor | None,
    progress: Callable[[int], None] = lambda seq: None,
) -> Verdict:
    """Look at every row, also while others add to the log and remove from it.

    `noted` is the head as it is noted beside the database, if it is; `progress` is told how far it is.
    Raises STORAGE_UNAVAILABLE.
    """
    walk = _Walk(chain, noted)
    broken = walk.check_noted()
    while broken is None and not walk.ended:
        page = await store.page(walk.at, _PAGE)
        broken = walk.take(page)
        progress(walk.at)
    return Verdict(walk.base, walk.at, walk.rows, broken)


class _Walk:
    """How far it is: `at` is the last row that was as it should be."""

    def __init__(self, chain: Chain, noted: Anchor | None) -> None:
        self._chain = chain
        self._noted = noted
        self.at, self._hash = 0, ORIGIN
        self.base = self.rows = 0
        self.ended = False

    def check_noted(self) -> Broken | None:
        """Whether the copy of the head is one of ours."""
        if self._noted is not None and not self._chain.sealed(self._noted):
            return Broken(self._noted.seq, "the head that is noted beside the database was changed")
        return None

    def take(self, page: AuditPage) -> Broken | None:
        """Go on by a page; it ends with one that has no row."""
        broken = self._check_ends(page)
        if broken is None and self._behind(page):
            return self._jump(page.base)
        for row in page.rows:
            broken = broken or self._step(row)
            if broken is not None:
                return broken
        if broken is None and not page.rows:
            self.ended = True
            broken = self._check_end(page.head)
        return broken

    def _check_ends(self, page: AuditPage) -> Broken | None:
        base, head = page.base, page.head
        if head is not None and not self._chain.sealed(head):
            return Broken(head.seq, "the head was changed")
        if base is not None and not self._chain.sealed(base):
            return Broken(base.seq, "the note of what was removed was changed")
        if page.lowest is not None and page.lowest <= (base.seq if base is not None else 0):
            return Broken(page.lowest, "there is a row before the first")
        return None

    def _behind(self, page: AuditPage) -> bool:
        """Whether what comes next has been removed since, as it may be."""
        if page.base is None or page.base.seq <= self.at:
            return False
        return not page.rows or page.rows[0].seq > self.at + 1

    def _jump(self, base: Anchor | None) -> Broken | None:
        assert base is not None
        if self.rows == 0:
            self.base = base.seq
        self.at, self._hash = base.seq, base.hash
        return None

    def _step(self, row: AuditRow) -> Broken | None:
        if row.seq != self.at + 1:
            return Broken(self.at + 1, "the row is missing")
        if not self._chain.holds(row):
            return Broken(row.seq, "the row was changed, or made with another key")
        if row.prev_hash != self._hash:
            return Broken(row.seq, "the row does not follow the one before it")
        noted = self._noted
        if noted is not None and row.seq == noted.seq and row.hash != noted.hash:
            return Broken(row.seq, "the row is not the one that was noted as the last")
        self.at, self._hash = row.seq, row.hash
        self.rows += 1
        return None

    def _check_end(self, head: Anchor | None) -> Broken | None:
        end = head.seq if head is not None else 0
        if self._noted is not None:
            end = max(end, self._noted.seq)
        if end > self.at:
            return Broken(self.at + 1, f"the rows up to {end} are missing")
        if head is None:
            return Broken(self.at, "the head is missing") if self.at else None
        if (head.seq, head.hash) != (self.at, self._hash):
            return Broken(head.seq + 1, "there are rows behind the head")
        return None
