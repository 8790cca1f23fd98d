"""Directories of the service's own, and of its processes, below one that processes may write to."""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Callable, Sequence
from pathlib import Path

from warmline_service.errors import Reason, WarmlineError

# A link in its place is refused, wherever it leads.
_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
# Of a directory that a group shares: what is made in it is the group's as well.
SHARED_FOLDER, SHARED_FILE = 0o2770, 0o660


def own_directory(root: Path, *names: str, group: int | None = None) -> Path:
    """The directory of these names below `root`, made where it is missing, private; blocks.

    Each name is looked up in the directory before it and must be a real directory of this user's.
    With `group` the last one is also for the processes that are in it. Raises STORAGE_UNAVAILABLE.
    """

    def settle(here: int, last: bool) -> None:
        if os.fstat(here).st_uid != os.geteuid():
            raise _unusable(names, "it belongs to somebody else")
        if last and group is not None:
            _share(here, group)
        else:
            os.fchmod(here, 0o700)

    _descend(root, names, settle)
    return root.joinpath(*names)


def reach_directory(root: Path, *names: str) -> None:
    """Make sure of a process's directory below `root`: no name on the way to it is a link; blocks.

    It is made where it is missing, and can be read afterwards. Raises STORAGE_UNAVAILABLE.
    """

    def settle(here: int, last: bool) -> None:
        del last
        mode = stat.S_IMODE(os.fstat(here).st_mode)
        if mode & 0o700 != 0o700:
            os.fchmod(here, mode | 0o700)

    _descend(root, names, settle)


def _descend(root: Path, names: Sequence[str], settle: Callable[[int, bool], None]) -> None:
    with contextlib.ExitStack() as opened:
        try:
            here = os.open(root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            opened.callback(os.close, here)
            for number, name in enumerate(names, 1):
                with contextlib.suppress(FileExistsError):
                    os.mkdir(name, 0o700, dir_fd=here)
                here = os.open(name, _FOLDER, dir_fd=here)
                opened.callback(os.close, here)
                settle(here, number == len(names))
        except OSError as error:
            raise _unusable(names, error.strerror or str(error)) from error


def _share(folder: int, group: int) -> None:
    """Let a group have a directory, and all in it where it had not yet."""
    about = os.fstat(folder)
    if about.st_gid != group:
        for _, folders, files, here in os.fwalk(".", dir_fd=folder, follow_symlinks=False):
            for name in (*folders, *files):
                _share_one(here, name, group)
        os.fchown(folder, -1, group)
    if stat.S_IMODE(about.st_mode) != SHARED_FOLDER:
        os.fchmod(folder, SHARED_FOLDER)


def _share_one(folder: int, name: str, group: int) -> None:
    flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    try:
        here = os.open(name, flags, dir_fd=folder)
    except OSError:
        return  # A link, a socket, or gone.
    try:
        mode = os.fstat(here).st_mode
        os.fchown(here, -1, group)
        mine = stat.S_IMODE(mode) & 0o700
        os.fchmod(here, SHARED_FOLDER if stat.S_ISDIR(mode) else mine | mine >> 3)
    finally:
        os.close(here)


def _unusable(names: Sequence[str], why: str) -> WarmlineError:
    return WarmlineError(
        Reason.STORAGE_UNAVAILABLE,
        f"The directory {'/'.join(names)} cannot be used: {why}.",
        retry_after=10.0,
    )
