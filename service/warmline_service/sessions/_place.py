"""Files that are put into a directory which processes of the same user write to as well."""

from __future__ import annotations

import contextlib
import os
import secrets
from collections.abc import Sequence
from pathlib import Path

from warmline_service.errors import WarmlineError, field_invalid
from warmline_service.sessions._files import PlacedFile
from warmline_service.sessions._own_directory import SHARED_FILE, SHARED_FOLDER

# Whatever a link leads to is not the workspace's.
_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_NEW = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC


def place_files(
    folder: Path, files: Sequence[PlacedFile], field: str, *, shared: bool = False
) -> None:
    """Put files into a directory, each as a whole in place of what is at its path; blocks.

    `shared`: for the group of the directory as well.

    Raises FIELD_INVALID, with the field that is named, where something else than a directory is on
    the way to one or a directory in its place; those before it are there then. Raises OSError.
    """
    for index, file in enumerate(files):
        try:
            _place(folder, file, shared)
        except (NotADirectoryError, IsADirectoryError) as error:
            raise _in_the_way(f"{field}[{index}].path") from error


def _place(folder: Path, file: PlacedFile, shared: bool) -> None:
    *above, name = file.path.split("/")
    with contextlib.ExitStack() as opened:
        here = os.open(folder, _FOLDER)
        opened.callback(os.close, here)
        for each in above:
            made = False
            with contextlib.suppress(FileExistsError):
                os.mkdir(each, 0o700, dir_fd=here)
                made = True
            # A link is refused as what is no directory.
            here = os.open(each, _FOLDER, dir_fd=here)
            opened.callback(os.close, here)
            if made and shared:
                os.fchmod(here, SHARED_FOLDER)
        _write(here, name, file.data, shared)


def _write(folder: int, name: str, data: bytes, shared: bool) -> None:
    # Short, whatever the name is, and nobody's.
    new = f".{secrets.token_hex(8)}"
    try:
        with os.fdopen(os.open(new, _NEW, 0o600, dir_fd=folder), "wb") as out:
            out.write(data)
            if shared:
                os.fchmod(out.fileno(), SHARED_FILE)
        os.rename(new, name, src_dir_fd=folder, dst_dir_fd=folder)
    except BaseException:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(new, dir_fd=folder)
        raise


def _in_the_way(field: str) -> WarmlineError:
    return field_invalid(field, "is where the workspace has a directory, or below what is none")
