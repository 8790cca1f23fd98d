"""Limits of the kernel's for a whole tree, where the service may make control groups (cgroup v2)."""

from __future__ import annotations

import contextlib
import errno
import os
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from warmline_service.config import SandboxSettings
from warmline_service.sandbox._kernel_file import tell_kernel

_WANTED = ("cpu", "memory", "pids")
# The service's own, beside those of the boxes: a group with processes gives none of its rights on.
_SERVICE = "warmline-service"
_PERIOD = 100_000
_PATIENCE = 2.0


@dataclass(frozen=True)
class Cgroups:
    """A group for each box, below that which the service was started in. The methods block.

    `name` is that of the group around the boxes. `controllers` are those that the service may use, of
    which each limits something.
    """

    root: Path
    name: str
    controllers: tuple[str, ...]

    @classmethod
    def find(cls, name: str) -> Cgroups | None:
        """What there is for this service; None where it may make no group, or none that limits."""
        root = _own_group()
        if root is None or not os.access(root, os.W_OK):
            return None
        try:
            known = (root / "cgroup.controllers").read_text(encoding="ascii").split()
        except OSError:
            return None
        controllers = tuple(each for each in _WANTED if each in known)
        return cls(root, name, controllers) if controllers else None

    def open(self) -> None:
        """Get ready: the service moves to a group of its own.

        Raises OSError where it may not; EBUSY where others are in the group that it was started in.
        """
        self.close()
        (self.root / _SERVICE).mkdir(exist_ok=True)
        tell_kernel(self.root / _SERVICE / "cgroup.procs", str(os.getpid()))
        self._boxes.mkdir()
        try:
            for group in (self.root, self._boxes):
                tell_kernel(
                    group / "cgroup.subtree_control", " ".join(f"+{x}" for x in self.controllers)
                )
        except OSError:
            self.close()
            raise

    def make(self, box_id: str, settings: SandboxSettings) -> None:
        """A group for a box, with its limits. Raises OSError."""
        group = self._group(box_id)
        group.mkdir()
        limits = {
            "cpu": {"cpu.max": f"{int(settings.cpus * _PERIOD)} {_PERIOD}"}
            if settings.cpus
            else {},
            # All of it ends, as it does where the watch finds out.
            "memory": {"memory.max": str(settings.memory_bytes), "memory.oom.group": "1"},
            "pids": {"pids.max": str(settings.processes)},
        }
        for controller in self.controllers:
            for name, value in limits[controller].items():
                tell_kernel(group / name, value)

    def join(self, box_id: str, tree: Callable[[], Iterable[int]]) -> None:
        """Move a tree of processes in, and what it has become meanwhile. Raises OSError."""
        procs = self._group(box_id) / "cgroup.procs"
        while new := set(tree()) - set(map(int, procs.read_text(encoding="ascii").split())):
            for pid in new:
                with contextlib.suppress(ProcessLookupError):
                    tell_kernel(procs, str(pid))

    def ran_out(self, box_id: str) -> bool:
        """Whether the kernel has ended what was in a group, for its memory. Raises OSError."""
        try:
            events = (self._group(box_id) / "memory.events").read_text(encoding="ascii")
        except FileNotFoundError:
            return False  # Another controller's group, or none.
        counts = dict(line.split() for line in events.splitlines())
        return int(counts["oom_kill"]) > 0

    def remove(self, box_id: str) -> None:
        """End whatever is in a group, and remove it. Raises OSError."""
        group = self._group(box_id)
        if not group.exists():
            return
        tell_kernel(group / "cgroup.kill", "1")
        deadline = time.monotonic() + _PATIENCE
        while True:
            try:
                group.rmdir()
            except OSError as error:
                # What was killed is not gone at once.
                if error.errno != errno.EBUSY or time.monotonic() >= deadline:
                    raise
                time.sleep(0.002)
            else:
                return

    def close(self) -> None:
        """End and remove what is left of boxes. Raises OSError."""
        if self._boxes.exists():
            for group in self._boxes.iterdir():
                if group.is_dir():
                    self.remove(group.name)
            self._boxes.rmdir()

    @property
    def _boxes(self) -> Path:
        return self.root / self.name

    def _group(self, box_id: str) -> Path:
        return self._boxes / box_id


def _own_group() -> Path | None:
    """The directory of the group that the service was started in."""
    own = ""
    for line in Path("/proc/self/cgroup").read_text(encoding="utf-8").splitlines():
        if line.startswith("0::"):
            own = line.removeprefix("0::")
    for line in Path("/proc/self/mountinfo").read_text(encoding="utf-8").splitlines():
        before, _, after = line.partition(" - ")
        if own and after.startswith("cgroup2 "):
            _, _, _, root, place, *_ = before.split(" ")
            below = os.path.relpath(own, root)
            group = Path(place) / below
            # Where this process, or what started it, has moved already.
            group = group.parent if group.name == _SERVICE else group
            return None if below.startswith("..") else group
    return None
