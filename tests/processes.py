"""Looking at processes that come and go while they are looked at."""

from collections.abc import Iterator
from typing import Any

import psutil


def descendants(
    *attributes: str, of: int | None = None
) -> Iterator[tuple[psutil.Process, dict[str, Any]]]:
    """The processes below this one, or below that `of` a pid, with these attributes of each.

    Left out are those that end meanwhile. An attribute that a process has no more is None.
    """
    for process in psutil.Process(of).children(recursive=True):
        try:
            yield process, process.as_dict(attributes)
        except psutil.NoSuchProcess:
            continue


def runs(process: psutil.Process) -> bool:
    """Whether it lives: a zombie does not."""
    try:
        return bool(process.status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False
