"""Mounts, by the kernel's own calls: bind a directory, share what is mounted in it, take it away."""

from __future__ import annotations

import contextlib
import ctypes
import os
from pathlib import Path

_MS_BIND, _MS_PRIVATE, _MS_SHARED = 1 << 12, 1 << 18, 1 << 20
_MNT_DETACH, _UMOUNT_NOFOLLOW = 2, 8

_libc = ctypes.CDLL(None, use_errno=True)


def bind(source: Path, target: Path) -> None:
    """Have a directory at another place as well. Raises OSError."""
    _mount(source, target, _MS_BIND)


def share(place: Path) -> None:
    """Make a directory one whose mounts are seen by who has been given a part of it. Raises OSError."""
    _mount(place, place, _MS_BIND)
    try:
        # Of its own: what is around it may be shared with others.
        _mount(None, place, _MS_PRIVATE)
        _mount(None, place, _MS_SHARED)
    except OSError:
        unmount(place)
        raise


def unmount(target: Path) -> None:
    """Take away what is mounted there, for all who see it. Raises OSError."""
    if _libc.umount2(os.fsencode(target), _MNT_DETACH | _UMOUNT_NOFOLLOW):
        raise _failed(target)


def mounts_below(root: Path) -> list[Path]:
    """What is mounted at `root` and below it, the last first."""
    found = []
    for line in Path("/proc/self/mountinfo").read_text(encoding="utf-8").splitlines():
        place = Path(_unescaped(line.split(" ")[4]))
        if place.is_relative_to(root):
            found.append(place)
    return found[::-1]


def clear(root: Path) -> None:
    """Unmount all that is below a directory, then remove it; never what was mounted. Raises OSError."""
    for place in mounts_below(root):
        unmount(place)
    # Only what is empty goes: of what could still be mounted nothing is ever deleted.
    for folder, _, _ in os.walk(root, topdown=False):
        os.rmdir(folder)  # noqa: PTH106  # the walk gives names
    with contextlib.suppress(FileNotFoundError):
        root.rmdir()


def _mount(source: Path | None, target: Path, flags: int) -> None:
    given = None if source is None else os.fsencode(source)
    if _libc.mount(given, os.fsencode(target), None, ctypes.c_ulong(flags), None):
        raise _failed(target)


def _failed(target: Path) -> OSError:
    number = ctypes.get_errno()
    return OSError(number, os.strerror(number), str(target))


def _unescaped(text: str) -> str:
    # Blanks and the like are written as three octal digits.
    return os.fsdecode(
        text.encode("utf-8", "surrogateescape").decode("unicode_escape").encode("latin-1")
    )
