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
from warmline_service.sandbox._door import Door
from warmline_service.sandbox._filter import filter_program, machines
from warmline_service.sandbox._identity import new_user_namespace
from warmline_service.sandbox._init import Init
from warmline_service.sandbox._shares import Shares

_log = structlog.get_logger(__name__)

_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_PROGRAMS = {
    "bwrap": "bubblewrap",
    "nsenter": "util-linux",
    "prlimit": "util-linux",
    "setpriv": "util-linux",
}
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

    `init`, which is to be ended when what was started has ended, makes sure of all that it leaves. `door` is
    to be opened or closed when it was started: what is in the box waits for that.
    """

    argv: tuple[str, ...]
    env: Mapping[str, str]
    fds: tuple[int, ...]
    init: Init
    umask: int = -1
    door: Door | None = None

    def close(self) -> None:
        """Close what the command has inherited; `init` and `door` are for who started it."""
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
        self.levels: frozenset[Level] = frozenset({settings.level})
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
            lack = sandbox._try_levels()
            if lack is None:
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

    def why_ended(self, box_id: str) -> str:
        """What the kernel ended all of a box for, so as to complete "the process ..."; empty for nothing.

        Raises OSError.
        """
        if self.cgroups is None or not self.cgroups.ran_out(box_id):
            return ""
        return self.settings.memory_exceeded

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
            waits, held = map(keep, os.pipe()) if box.door else (None, None)
            inherited = Inherited(keep(_memory(self._filter)), report, files, users, waits)
            shared = None
            if self.shares is not None:
                shared = self.shares.make(box.id)
                for folder in box.folders:
                    self.shares.show(box.id, folder)
                box = replace(box, folders=())
            arguments = bubblewrap_arguments(box, self.settings, self.users, inherited, shared)
            told = keep(_memory(b"".join(each.encode() + b"\0" for each in arguments)))
            fds = [told, inherited.filter, report, *files.values()]
            fds += [each for each in (users, waits) if each is not None]
            if self.cgroups is not None:
                self.cgroups.make(box.id, self.settings)
            opened.pop_all()
        # It is there before anything else: what starts the service may end at any time.
        start = (self._programs["setpriv"], "--pdeathsig", "KILL", "--", self._programs["bwrap"])
        argv = (*start, "--args", str(told), "--", *self._limited(owner), *box.argv)
        init = Init(heard)
        door = None if held is None else Door(self._programs["nsenter"], init, held)
        return Command(
            argv, dict(box.label), tuple(fds), init, -1 if owner is None else _UMASK, door
        )

    def _try_levels(self) -> str | None:
        """Find out which levels there can be; what is wrong where that of the settings cannot be."""
        lack = self.try_out("network")
        if lack is None:
            # It is the other, and a door.
            self.levels |= {"strict", "network"}
        if lack is None or self.settings.level == "network":
            return lack
        also = self.try_out("strict")
        if also is None:
            _log.warning("the sandbox level network cannot be had", error=lack)
        return also

    def try_out(self, level: Level) -> str | None:
        """What is wrong with such a sandbox at a level; None where the kernel says that all of it holds."""
        with tempfile.TemporaryDirectory() as folder:
            box_id = secrets.token_hex(8)
            root = Path(folder) / box_id
            root.mkdir()
            argv = (shutil.which("cat", path=_PATH) or "cat", "/proc/self/status", "/proc/net/dev")
            box = Box(box_id, root, argv, {"PATH": _PATH}, root, {}, door=level == "network")
            try:
                code, said, errors = _run(self.command(box))
            except (OSError, subprocess.TimeoutExpired) as error:
                return f"{getattr(error, 'strerror', None) or error}"
        if code:
            return errors.decode("utf-8", "replace").strip() or f"exit code {code}"
        return self._judge(said.decode("utf-8", "replace"), box)

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
        if not devices or others != 1:
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
        if settings.cpu_seconds:
            limits["cpu"] = (resource.RLIMIT_CPU, settings.cpu_seconds)
        start = [self._programs["prlimit"]]
        start += [f"--{name}={_lower(number, most)}" for name, (number, most) in limits.items()]
        if owner is not None:
            start += ["--", self._programs["setpriv"], f"--reuid={owner.uid}"]
            start += [f"--regid={owner.gid}", "--clear-groups", "--no-new-privs"]
            start += ["--inh-caps=-all", "--bounding-set=-all"]
        return [*start, "--"]


def _run(command: Command) -> tuple[int, bytes, bytes]:
    """Run a command to its end, and through its door: its code, and what it wrote.

    Raises OSError and TimeoutExpired; nothing is left then either.
    """
    try:
        try:
            process = subprocess.Popen(
                command.argv,
                env=dict(command.env),
                pass_fds=command.fds,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
            )
        finally:
            command.close()
        with process:
            try:
                if command.door is not None:
                    command.door.open().close()
                said, errors = process.communicate(timeout=_TRY_TIMEOUT)
            finally:
                process.kill()
            return process.returncode, said, errors
    finally:
        if command.door is not None:
            command.door.close()
        command.init.end(_TRY_TIMEOUT)


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
