"""What chains the rows: each is hashed with the one before it, by a key that the database has not."""

from __future__ import annotations

import hashlib
import hmac
import struct
from collections.abc import Iterable, Sequence
from typing import Any

import msgspec
from msgspec import Struct

from warmline_service.store import BASE, HEAD, Anchor, AuditRow

# What the vault derives the key for.
KEY_PURPOSE = "audit log"
# The hash before the first row.
ORIGIN = "0" * 64


class Entry(Struct, frozen=True):
    """What becomes a row, when it is known behind which one it comes."""

    time: float
    tenant: str
    actor: str
    action: str
    session_id: str
    turn_id: str
    request_id: str
    outcome: str
    detail: str


class Chain:
    """Makes rows and anchors, and says whether they are as they were made; for one key."""

    def __init__(self, key: bytes) -> None:
        self._key = key

    def link(self, place: tuple[int, str], entries: Iterable[Entry]) -> list[AuditRow]:
        """The rows of entries that come behind a place (seq, hash)."""
        seq, previous = place
        rows = []
        for entry in entries:
            seq += 1
            fields: tuple[Any, ...] = (seq, *msgspec.structs.astuple(entry), previous)
            previous = self._mac("row", fields)
            rows.append(AuditRow(*(*fields, previous)))
        return rows

    def holds(self, row: AuditRow) -> bool:
        """Whether a row is just what was made."""
        fields = msgspec.structs.astuple(row)
        return _same(self._mac("row", fields[:-1]), row.hash)

    def anchored(self, name: str, seq: int, digest: str) -> Anchor:
        """An end of the log."""
        return Anchor(name, seq, digest, self._mac("anchor", (name, seq, digest)))

    def sealed(self, anchor: Anchor) -> bool:
        """Whether an anchor was made with this key."""
        return _same(self._mac("anchor", (anchor.name, anchor.seq, anchor.hash)), anchor.mac)

    def head(self, row: AuditRow) -> Anchor:
        """The head of a log that ends with a row."""
        return self.anchored(HEAD, row.seq, row.hash)

    def base_after(self, base: Anchor | None, rows: Sequence[AuditRow]) -> Anchor | None:
        """The base when these rows, the oldest that there are, have been removed.

        None where they are not what was made: what was tampered with stays to be found.
        """
        if base is not None and not self.sealed(base):
            return None
        at, previous = (base.seq, base.hash) if base is not None else (0, ORIGIN)
        for row in rows:
            if row.seq != at + 1 or row.prev_hash != previous or not self.holds(row):
                return None
            at, previous = row.seq, row.hash
        return self.anchored(BASE, at, previous)

    def _mac(self, kind: str, fields: Iterable[object]) -> str:
        data = b"".join(map(_canonical, (kind, *fields)))
        return hmac.new(self._key, data, hashlib.sha256).hexdigest()


def _canonical(value: object) -> bytes:
    """A value so that no other value, and no two values, are written alike."""
    if isinstance(value, str):
        kind, data = b"s", value.encode("utf-8", "surrogateescape")
    elif isinstance(value, float):
        kind, data = b"f", struct.pack(">d", value)
    else:
        # Where the table has what no row was made with: SQLite keeps any kind in any column.
        kind, data = (b"i" if isinstance(value, int) else b"?"), repr(value).encode()
    return kind + len(data).to_bytes(8, "big") + data


def _same(made: str, given: object) -> bool:
    return isinstance(given, str) and hmac.compare_digest(
        made.encode(), given.encode("utf-8", "surrogateescape")
    )
