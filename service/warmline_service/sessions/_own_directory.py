"""Directories of the service's own, below one that CLI processes of the same user can write to."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Sequence
from pathlib import Path

from warmline_service.errors import Reason, WarmlineError

# A link in its place is refused, wherever it leads.
_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


def own_directory(root: Path, *names: str) -> Path:
    """The directory of these names below `root`, made where it is missing, private; blocks.

    Each name is looked up in the directory before it and must be a real directory of this user's.
    Raises STORAGE_UNAVAILABLE.
    """
    owners: set[int] = set()
    with contextlib.ExitStack() as opened:
        try:
            here = os.open(root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            opened.callback(os.close, here)
            for name in names:
                with contextlib.suppress(FileExistsError):
                    os.mkdir(name, 0o700, dir_fd=here)
                here = os.open(name, _FOLDER, dir_fd=here)
                opened.callback(os.close, here)
                owners.add(os.fstat(here).st_uid)
                os.fchmod(here, 0o700)
        except OSError as error:
            raise _unusable(names, error.strerror or str(error)) from error
        if owners - {os.geteuid()}:
            raise _unusable(names, "it belongs to somebody else")
    return root.joinpath(*names)


def _unusable(names: Sequence[str], why: str) -> WarmlineError:
    return WarmlineError(
        Reason.STORAGE_UNAVAILABLE,
        f"The directory {'/'.join(names)} cannot be used: {why}.",
        retry_after=10.0,
    )
