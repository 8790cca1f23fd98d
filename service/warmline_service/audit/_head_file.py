"""The log's head noted beside the database: who cuts off the end of the table does not reach it."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

import msgspec

from warmline_service.store import Anchor

_NAME = "audit.head"


class HeadFile:
    """The file; both methods block. Raises OSError."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def read(self) -> Anchor | None:
        """What was noted last; None where nothing was. An anchor without a seal where it is unreadable."""
        try:
            data = self.path.read_bytes()
        except FileNotFoundError:
            return None
        with contextlib.suppress(msgspec.MsgspecError):
            return msgspec.json.decode(data, type=Anchor)
        return Anchor("", 0, "", "")

    def write(self, anchor: Anchor) -> None:
        """Note an anchor: whole, or not at all."""
        half = self.path.with_name(f"{self.path.name}.{os.getpid()}")
        try:
            flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC
            with os.fdopen(os.open(half, flags, 0o600), "wb") as file:
                file.write(msgspec.json.encode(anchor) + b"\n")
                file.flush()
                os.fsync(file.fileno())
            half.replace(self.path)
        finally:
            half.unlink(missing_ok=True)


def head_file(data_dir: Path) -> HeadFile:
    """The file of a data directory."""
    return HeadFile(data_dir / _NAME)
