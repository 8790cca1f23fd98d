"""The arguments of bubblewrap: what is in the world of a process, and nothing else."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from warmline_service.config import SandboxSettings
from warmline_service.sandbox._box import Box, Owner

# Where namespaces of users come from: bubblewrap makes one as the service's user, or is given one in
# which root and the process's own user are known, or goes without as root.
Users = Literal["own", "mapped", "none"]

_LINKS = ("/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32")
# What programs look up that is no secret: certificates, the linker's cache, names of time zones.
_ETC = (
    "alternatives",
    "ca-certificates",
    "crypto-policies",
    "ld.so.cache",
    "ld.so.conf",
    "ld.so.conf.d",
    "localtime",
    "mime.types",
    "nsswitch.conf",
    "pki",
    "protocols",
    "services",
    "ssl",
)
# Its own, in memory.
_SCRATCH = ("/dev/shm", "/tmp", "/var/tmp")  # noqa: S108  # that is the point
# What root keeps until the process has become its own user: to do that, and to enter its directory.
_UNTIL_ITS_USER = ("CAP_SETUID", "CAP_SETGID", "CAP_SETPCAP", "CAP_DAC_READ_SEARCH")
# The first process of the sandbox is bubblewrap's: nothing inside may look into it or change it.
_HIDDEN = "/proc/1"


@dataclass(frozen=True)
class Inherited:
    """Descriptors of the launcher's: the seccomp program, files by their places, a namespace of users."""

    filter: int
    # Where the first process of the box is told.
    report: int
    files: Mapping[str, int]
    users: int | None = None
    # What the command waits for, until it can be read or has no writer any more.
    door: int | None = None


@dataclass(frozen=True)
class Shared:
    """A directory outside, `place`, in which others appear that are shown later; `at`: where inside."""

    place: Path
    at: Path


def bubblewrap_arguments(
    box: Box,
    settings: SandboxSettings,
    users: Users,
    inherited: Inherited,
    shared: Shared | None,
) -> list[str]:
    """All but the program itself and its command. Blocks: looks at what the system has."""
    arguments = [
        *_namespaces(users, inherited),
        *_system(settings, inherited),
    ]
    for path in (*settings.readable, *box.readable):
        place = path.expanduser().absolute()
        arguments += _at("--ro-bind", place, place)
    if shared is not None:
        arguments += _at("--bind", shared.place, shared.at)
    for path in (box.root, *box.folders):
        arguments += _at("--bind", path, path)
    arguments += ["--remount-ro", "/", "--chdir", str(box.cwd), "--clearenv"]
    for name, value in box.env.items():
        arguments += ["--setenv", name, value]
    return arguments


def files_of(owner: Owner, home: str) -> dict[str, bytes]:
    """Files of a box, by their places: programs ask who they are."""
    user = f"agent:x:{owner.uid}:{owner.gid}::{home}:/bin/sh"
    texts = {
        "/etc/passwd": f"root:x:0:0:root:/:/usr/sbin/nologin\n{user}\n",
        "/etc/group": f"root:x:0:\nagent:x:{owner.gid}:\n",
        # What is in a workspace may have been made by the user of another session of the tenant's.
        "/etc/gitconfig": "[safe]\n\tdirectory = *\n",
    }
    return {place: text.encode() for place, text in texts.items()}


def _at(kind: str, source: Path, place: Path) -> list[str]:
    """A mount, and what is above it: bubblewrap by itself would let nobody else through."""
    above = [_folder(str(each)) for each in reversed(place.parents) if each.name]
    return [*(word for each in above for word in each), kind, str(source), str(place)]


def _folder(path: str) -> tuple[str, ...]:
    return ("--perms", "0755", "--dir", path)


def _namespaces(users: Users, inherited: Inherited) -> Sequence[str]:
    arguments = ["--unshare-pid", "--unshare-ipc", "--unshare-uts", "--unshare-cgroup-try"]
    arguments += ["--unshare-net", "--hostname", "sandbox", "--die-with-parent"]
    arguments += ["--cap-drop", "ALL"]
    if users == "own":
        arguments += ["--unshare-user", "--disable-userns"]
    else:
        for capability in _UNTIL_ITS_USER:
            arguments += ["--cap-add", capability]
    if users == "mapped":
        # As the second of these it is also closed before the command is started.
        arguments += ["--userns", str(inherited.users), "--sync-fd", str(inherited.users)]
    arguments += ["--info-fd", str(inherited.report)]
    if inherited.door is not None:
        arguments += ["--block-fd", str(inherited.door)]
    return (*arguments, "--seccomp", str(inherited.filter))


def _system(settings: SandboxSettings, inherited: Inherited) -> Sequence[str]:
    size = str(settings.scratch_bytes)
    arguments = ["--ro-bind", "/usr", "/usr"]
    for link in map(Path, _LINKS):
        if link.is_symlink():
            arguments += ["--symlink", str(link.readlink()), str(link)]
        elif link.is_dir():
            arguments += ["--ro-bind", str(link), str(link)]
    arguments += [*_folder("/etc"), *_folder("/var")]
    for name in _ETC:
        arguments += ["--ro-bind-try", f"/etc/{name}", f"/etc/{name}"]
    for place, file in inherited.files.items():
        arguments += ["--perms", "0444", "--file", str(file), place]
    arguments += ["--proc", "/proc", "--perms", "0555", "--size", "4096", "--tmpfs", _HIDDEN]
    arguments += ["--remount-ro", _HIDDEN, "--dev", "/dev"]
    for scratch in _SCRATCH:
        arguments += ["--perms", "1777", "--size", size, "--tmpfs", scratch]
    return (*arguments, "--remount-ro", "/dev")
