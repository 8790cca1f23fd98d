"""Names and links inside an archive: what stays below the directory, decided without looking at a disk."""

from __future__ import annotations

from warmline_service.store._archive_bounds import ArchiveRefused

_NAME_BYTES = 255


def member_parts(name: str) -> tuple[str, ...]:
    """The parts of a member's name; ArchiveRefused unless it leads strictly downwards.

    Empty for the directory itself, which other tools write as `./`.
    """
    if name.startswith("/") or "\0" in name:
        raise ArchiveRefused("a name that is no relative path", name)
    parts = tuple(part for part in name.split("/") if part not in {"", "."})
    if ".." in parts:
        raise ArchiveRefused("a name that leads upwards", name)
    if any(len(part.encode("utf-8", "surrogateescape")) > _NAME_BYTES for part in parts):
        raise ArchiveRefused("a name that is too long", name)
    return parts


def stays_inside(target: str, depth: int) -> bool:
    """Whether a symlink in a directory that is `depth` below the top can lead nowhere outside.

    It may climb only at its beginning, where it stands in real directories, and no higher than the
    top. After a name no `..` is allowed: that name may be another link, and what is above its end is
    not what is above it. If all links are so, no chain of them leaves.
    """
    if not target or target.startswith("/") or "\0" in target:
        return False
    climbed, down = 0, False
    for part in target.split("/"):
        if part == "..":
            if down:
                return False
            climbed += 1
        elif part not in {"", "."}:
            down = True
    return climbed <= depth
