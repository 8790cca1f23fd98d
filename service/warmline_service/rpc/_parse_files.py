"""Files of workspaces from the wire: no path leads out of one."""

from __future__ import annotations

import re
from collections.abc import Sequence

from warmline.v1 import session_config_pb2 as pb

from warmline_service.errors import field_invalid
from warmline_service.sessions import PlacedFile

_FILES = 100
_PATH_BYTES, _NAME_BYTES, _DEPTH = 1024, 255, 32
_BAD = re.compile(r"[\x00-\x1f\x7f\\]")


def path_of(value: str, field: str) -> str:
    """A relative path of plain names."""
    names = value.split("/")
    if len(value.encode()) > _PATH_BYTES or len(names) > _DEPTH:
        raise field_invalid(field, f"is longer than {_PATH_BYTES} bytes or {_DEPTH} names")
    for name in names:
        if name in ("", ".", "..") or len(name.encode()) > _NAME_BYTES or _BAD.search(name):
            text = "must be a relative path of plain names, such as `src/main.py`"
            raise field_invalid(field, text)
    return value


def files_of(workspace: pb.Workspace, field: str, *, fork: bool) -> tuple[PlacedFile, ...]:
    """The files that a new session begins with."""
    if workspace.files and fork:
        raise field_invalid(f"{field}.files", "are only for a new session that is no fork")
    return placed_of(workspace.files, f"{field}.files")


def placed_of(files: Sequence[pb.WorkspaceFile], field: str) -> tuple[PlacedFile, ...]:
    """Files, each with a place of its own."""
    if len(files) > _FILES:
        raise field_invalid(field, f"has more than {_FILES} entries")
    taken: set[str] = set()
    for index, file in enumerate(files):
        place = f"{field}[{index}].path"
        path = path_of(file.path, place)
        above = {path.rsplit("/", depth)[0] for depth in range(1, path.count("/") + 1)}
        if path in taken or above & taken or any(each.startswith(f"{path}/") for each in taken):
            raise field_invalid(place, "is where another of the files is, or has to be a directory")
        taken.add(path)
    return tuple(PlacedFile(file.path, file.data) for file in files)
