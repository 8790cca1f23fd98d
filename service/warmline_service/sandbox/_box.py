"""What one sandboxed process is given, and who it is."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from warmline_service.config import Level
from warmline_service.errors import Reason, WarmlineError

# How many uids there are from the first on; each identifier has one of them.
_UIDS = 2**24


@dataclass(frozen=True)
class Owner:
    """The user and the group that a process runs as, and that its files belong to."""

    uid: int
    gid: int


@dataclass(frozen=True)
class Box:
    """One process, and all that is in its world beside the system.

    `root`: its own directory, which is at the same path inside. `folders`: others that it may write to,
    `readable`: what it may only read, both at their own paths as well. `label`: variables of the
    launcher, by which it can be found; they are no secret. `door`: it does not begin before a door in its
    network was opened or closed.
    """

    id: str
    root: Path
    argv: tuple[str, ...]
    env: Mapping[str, str]
    cwd: Path
    label: Mapping[str, str]
    folders: tuple[Path, ...] = ()
    readable: tuple[Path, ...] = ()
    door: bool = False


def owner_of(box_id: str, first_uid: int) -> Owner:
    """Whom a box is run as where each has a user of its own: by its identifier, in hex.

    All share a group, which is how they share what belongs to several.
    """
    return Owner(first_uid + 1 + int(box_id, 16) % (_UIDS - 1), first_uid)


def level_missing(level: Level) -> WarmlineError:
    """POLICY_DENIED: the level of a tenant's processes cannot be had, and they run at no lower one."""
    return WarmlineError(
        Reason.POLICY_DENIED,
        f"This tenant's processes are to run at the sandbox level {level}, which cannot be had here.",
        metadata={"sandbox": level},
    )
