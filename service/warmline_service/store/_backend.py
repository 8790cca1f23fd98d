"""Where blobs can be kept, seen from the facade: calls that block, each in a thread."""

from __future__ import annotations

import os
from pathlib import Path
from typing import BinaryIO, Protocol


class BlobBackend(Protocol):
    """Keys and prefixes are checked before they come here; `timeout` is what the caller waits.

    Each call may raise whatever its library raises; BlobMissing says that there is no such blob.
    """

    def open(self) -> None:
        """Make ready for use; StoreMisconfigured where the settings are wrong."""
        ...

    def put(self, key: str, data: bytes | Path, timeout: float) -> None:
        """Keep it, whole or not at all."""
        ...

    def get(self, key: str, timeout: float) -> bytes:
        """All of it."""
        ...

    def get_to(self, key: str, path: Path, timeout: float) -> None:
        """All of it into a file, whole or not at all."""
        ...

    def delete(self, key: str, timeout: float) -> None:
        """Remove it, if it is there."""
        ...

    def delete_prefix(self, prefix: str, timeout: float) -> None:
        """Remove all whose keys begin so."""
        ...

    def exists(self, key: str, timeout: float) -> bool:
        """Whether it is there."""
        ...

    def close(self) -> None:
        """Let go of connections."""
        ...


def new_private_file(path: Path) -> BinaryIO:
    """A file that was not there before, and that only we can read."""
    flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    return os.fdopen(os.open(path, flags, 0o600), "w+b")
