"""Runs commands in sandboxes: finds out how that is possible here, and says what is missing."""

from __future__ import annotations

import contextlib
import os
import resource
import secrets
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import structlog

from warmline_service.config import Level, SandboxSettings
from warmline_service.sandbox._arguments import (
    Inherited,
    Users,
    bubblewrap_arguments,
    files_of,
)
from warmline_service.sandbox._box import Box, Owner, owner_of
from warmline_service.sandbox._cgroups import Cgroups
from warmline_service.sandbox._filter import filter_program, machines
from warmline_service.sandbox._identity import new_user_namespace
from warmline_service.sandbox._init import Init
from warmline_service.sandbox._shares import Shares

_log = structlog.get_logger(__name__)

_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_PROGRAMS = {"bwrap": "bubblewrap", "prlimit": "util-linux", "setpriv": "util-linux"}
_ROOTS_PROGRAMS = {"unshare": "util-linux"}
_TRY_TIMEOUT = 10.0
_OPEN_FILES = 16 * 1024
# What root's commands create, its group may write to: it is shared by those who share a directory.
_UMASK = 0o007


_USERS: Mapping[Users, str] = {
    "mapped": "a user and a user namespace for each process",
    "none": "a user for each process, without a user namespace",
    "own": "a user namespace for each process, all as the service's user",
}


class SandboxMissing(Exception):  # noqa: N818  # named for what is the case
    """There can be no sandbox on this machine; says why, and what to do about it."""


@dataclass(frozen=True)
class Command:
    """What has to be started; `close` when that is done. `umask`: -1 for the service's own.

    `init`, which is to be ended when what was started has ended, makes sure of all that it leaves.
    """

    argv: tuple[str, ...]
    env: Mapping[str, str]
    fds: tuple[int, ...]
    init: Init
    umask: int = -1

    def close(self) -> None:
        """Close what the command has inherited; `init` is for who started it."""
        for fd in self.fds:
            os.close(fd)


class Sandbox:
    """How commands are sandboxed on this machine. Its methods block; use a thread.

    `shares` is there where a running box can be shown further directories. `levels`: those that it was
    seen to hold at.
    """

    def __init__(
        self,
        settings: SandboxSettings,
        programs: Mapping[str, str],
        users: Users,
        shares: Shares | None,
    ) -> None:
        self.settings = settings
        self.users = users
        self.shares = shares
        self.levels: frozenset[Level] = frozenset({"network", settings.level})
        self.cgroups: Cgroups | None = None
        self._programs = programs
        self._filter = filter_program()

    @classmethod
    def find(
        cls, settings: SandboxSettings, shares: Shares | None = None, name: str = "warmline"
    ) -> Sandbox:
        """The best that works here; with `shares` where that is possible. Raises SandboxMissing.

        `name` tells the control groups of this service from those of others.
        """
        programs = _programs()
        if os.uname().machine not in machines():
            raise SandboxMissing(f"There is no seccomp filter for {os.uname().machine}.")
        root = os.geteuid() == 0
        tried: list[str] = []
        kinds: tuple[Users, ...] = ("mapped", "none") if root else ("own",)
        for users in kinds:
            sandbox = cls(settings, programs, users, None)
            lack = sandbox.try_out(settings.level)
            if lack is None:
                if settings.level == "network" and sandbox.try_out("strict") is None:
                    sandbox.levels |= {"strict"}
                sandbox.shares = shares if root else None
                sandbox.cgroups = Cgroups.find(name)
                return sandbox
            tried.append(lack)
        raise SandboxMissing(_advice(tried))

    def __str__(self) -> str:
        controllers = () if self.cgroups is None else self.cgroups.controllers
        limits = f"cgroup v2 ({', '.join(controllers)}), rlimits" if controllers else "rlimits"
        return f"{_USERS[self.users]}; limits by {limits} and a watch"

    def open(self) -> None:
        """Get ready for boxes; take away what a killed service left. Raises OSError."""
        if self.shares is not None:
            self.shares.open()
        if self.cgroups is not None:
            try:
                self.cgroups.open()
            except OSError as error:
                _log.warning("control groups cannot be used", error=str(error))
                self.cgroups = None

    def close(self) -> None:
        """Take away what was got ready. Raises OSError."""
        if self.cgroups is not None:
            self.cgroups.close()
        if self.shares is not None:
            self.shares.close()

    def show(self, box_id: str, path: Path) -> None:
        """Have a running box see a directory; only with `shares`. Raises OSError."""
        assert self.shares is not None
        self.shares.show(box_id, path)

    def join(self, box_id: str, tree: Callable[[], Iterable[int]]) -> None:
        """Have the limits for a whole box hold for the processes that `tree` gives. Raises OSError."""
        if self.cgroups is not None:
            self.cgroups.join(box_id, tree)

    def remove(self, box_id: str) -> None:
        """End a box, and take away what there was for it. Raises OSError."""
        if self.cgroups is not None:
            self.cgroups.remove(box_id)
        if self.shares is not None:
            self.shares.remove(box_id)

    def owner(self, box_id: str) -> Owner | None:
        """Whom a box runs as and its files have to belong to; None: the service's own user."""
        return None if self.users == "own" else owner_of(box_id, self.settings.first_uid)

    @property
    def group(self) -> int | None:
        """The group that all boxes have; None: they are the service's own user."""
        return None if self.users == "own" else self.settings.first_uid

    def command(self, box: Box) -> Command:
        """The command that starts what is in a box. Raises OSError."""
        owner = self.owner(box.id)
        known = owner or Owner(os.geteuid(), os.getegid())
        with contextlib.ExitStack() as opened:

            def keep(fd: int) -> int:
                opened.callback(os.close, fd)
                return fd

            files = {
                place: keep(_memory(data))
                for place, data in files_of(known, box.env.get("HOME", "/")).items()
            }
            users = None
            if self.users == "mapped" and owner is not None:
                users = keep(new_user_namespace(self._programs["unshare"], owner))
            heard, report = map(keep, os.pipe())
            inherited = Inherited(keep(_memory(self._filter)), report, files, users)
            shared = None
            if self.shares is not None:
                shared = self.shares.make(box.id)
                for folder in box.folders:
                    self.shares.show(box.id, folder)
                box = replace(box, folders=())
            arguments = bubblewrap_arguments(box, self.settings, self.users, inherited, shared)
            told = keep(_memory(b"".join(each.encode() + b"\0" for each in arguments)))
            fds = [told, inherited.filter, report, *files.values()]
            fds += [] if users is None else [users]
            if self.cgroups is not None:
                self.cgroups.make(box.id, self.settings)
            opened.pop_all()
        # It is there before anything else: what starts the service may end at any time.
        start = (self._programs["setpriv"], "--pdeathsig", "KILL", "--", self._programs["bwrap"])
        argv = (*start, "--args", str(told), "--", *self._limited(owner), *box.argv)
        return Command(
            argv, dict(box.label), tuple(fds), Init(heard), -1 if owner is None else _UMASK
        )

    def try_out(self, level: Level) -> str | None:
        """What is wrong with such a sandbox at a level; None where the kernel says that all of it holds."""
        with tempfile.TemporaryDirectory() as folder:
            box_id = secrets.token_hex(8)
            root = Path(folder) / box_id
            root.mkdir()
            argv = (shutil.which("cat", path=_PATH) or "cat", "/proc/self/status", "/proc/net/dev")
            box = Box(box_id, root, argv, {"PATH": _PATH}, root, {}, level=level)
            try:
                command = self.command(box)
            except OSError as error:
                return f"{error.strerror or error}"
            try:
                done = subprocess.run(
                    command.argv,
                    env=dict(command.env),
                    pass_fds=command.fds,
                    stdin=subprocess.DEVNULL,
                    capture_output=True,
                    timeout=_TRY_TIMEOUT,
                    check=False,
                )
            except (OSError, subprocess.TimeoutExpired) as error:
                return str(error)
            finally:
                command.close()
                command.init.end(_TRY_TIMEOUT)
        if done.returncode:
            return done.stderr.decode("utf-8", "replace").strip() or f"exit code {done.returncode}"
        return self._judge(done.stdout.decode("utf-8", "replace"), box)

    def _judge(self, said: str, box: Box) -> str | None:
        """Hold against what the kernel says of a process in a box what has to be so."""
        facts = dict(line.split(":", 1) for line in said.splitlines() if ":" in line)
        owner = self.owner(box.id) or Owner(os.geteuid(), os.getegid())
        wanted = {
            "Uid": "\t".join([str(owner.uid)] * 4),
            "Gid": "\t".join([str(owner.gid)] * 4),
            "CapPrm": "0" * 16,
            "CapEff": "0" * 16,
            "CapBnd": "0" * 16,
            "CapAmb": "0" * 16,
            "NoNewPrivs": "1",
            "Seccomp": "2",
        }
        found = {name: facts.get(name, "").strip() for name in wanted}
        wrong = [f"{name} is {found[name]}" for name in wanted if found[name] != wanted[name]]
        devices = [name.strip() for name in facts if "|" not in name and name.strip() == "lo"]
        others = said.count("\n", said.find("|bytes")) - 1
        if box.level == "strict" and (not devices or others != 1):
            wrong.append("there is more than a loopback device")
        return ", ".join(wrong) or None

    def _limited(self, owner: Owner | None) -> list[str]:
        """What the command is started by, inside: limits, then the user."""
        settings = self.settings
        limits = {
            "core": (resource.RLIMIT_CORE, 0),
            "data": (resource.RLIMIT_DATA, settings.memory_bytes),
            "fsize": (resource.RLIMIT_FSIZE, settings.disk_bytes),
            "nofile": (resource.RLIMIT_NOFILE, _OPEN_FILES),
            "nproc": (resource.RLIMIT_NPROC, settings.processes),
        }
        start = [self._programs["prlimit"]]
        start += [f"--{name}={_lower(number, most)}" for name, (number, most) in limits.items()]
        if owner is not None:
            start += ["--", self._programs["setpriv"], f"--reuid={owner.uid}"]
            start += [f"--regid={owner.gid}", "--clear-groups", "--no-new-privs"]
            start += ["--inh-caps=-all", "--bounding-set=-all"]
        return [*start, "--"]


def _programs() -> dict[str, str]:
    wanted = _PROGRAMS | (_ROOTS_PROGRAMS if os.geteuid() == 0 else {})
    found = {name: shutil.which(name, path=_PATH) or "" for name in wanted}
    missing = sorted({package for name, package in wanted.items() if not found[name]})
    if missing:
        packages = " ".join(missing)
        raise SandboxMissing(f"It needs {packages} (Debian: apt-get install {packages}).")
    return found


def _lower(number: int, most: int) -> int:
    """No more than what holds for the service itself: to raise that takes a right."""
    hard = resource.getrlimit(number)[1]
    return most if hard == resource.RLIM_INFINITY else min(most, hard)


def _memory(data: bytes) -> int:
    """A descriptor from which `data` can be read."""
    fd = os.memfd_create("warmline", os.MFD_CLOEXEC)
    try:
        os.write(fd, data)
        os.lseek(fd, 0, os.SEEK_SET)
    except BaseException:
        os.close(fd)
        raise
    return fd


def _advice(tried: list[str]) -> str:
    if os.geteuid() == 0:
        needs = "As root it needs the right to mount (CAP_SYS_ADMIN) and to change users."
    else:
        needs = (
            "Without root it needs user namespaces (sysctl user.max_user_namespaces, "
            "kernel.unprivileged_userns_clone, kernel.apparmor_restrict_unprivileged_userns)."
        )
    return f"bubblewrap cannot make one here: {'; '.join(tried)}. {needs}"
