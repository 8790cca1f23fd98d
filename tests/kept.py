"""What stays on the disk, and the secret that must not be in it."""

import os
from collections.abc import Iterator
from pathlib import Path


def paths(root: Path) -> Iterator[Path]:
    """All that is below a directory, also while a process makes and removes things there."""
    # Path.rglob fails where a directory goes between being listed and being entered.
    for folder, folders, files in os.walk(root):
        yield from (Path(folder, name) for name in folders + files)


def contents(root: Path) -> list[bytes]:
    """Every file below a directory where nothing runs any more."""
    return [path.read_bytes() for path in paths(root) if path.is_file()]


def secret_of(key: str) -> str:
    """The secret part of `wl_<id>_<secret>`, which may have underscores of its own."""
    return key.split("_", 2)[2]
