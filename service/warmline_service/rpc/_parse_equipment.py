"""What a session is equipped with beside the model's own: directories, each checked and named."""

from __future__ import annotations

import re
from collections.abc import Sequence

from warmline_service.errors import field_invalid

NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,62}")
_DIRECTORIES = 16


def workspace_of(name: str, field: str) -> str:
    """The name of a workspace, or nothing."""
    if name and not NAME.fullmatch(name):
        raise field_invalid(field, "must be small letters, digits, `-` and `_`, at most 63")
    return name


def directories_of(names: Sequence[str], field: str) -> tuple[str, ...]:
    """Names of workspaces."""
    check_most(names, _DIRECTORIES, field)
    for index, name in enumerate(names):
        if not workspace_of(name, f"{field}[{index}]"):
            raise field_invalid(f"{field}[{index}]", "must not be empty")
    return tuple(names)


def check_most(given: Sequence[object], most: int, field: str) -> None:
    """Raise FIELD_INVALID for more than `most`."""
    if len(given) > most:
        raise field_invalid(field, f"has more than {most} entries")
