"""What makes a process's whole tree die: with the service, and when it is stopped."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Container
from pathlib import Path

from warmline_service.worker._child import ended
from warmline_service.worker._environment import MARKER

_PROC = Path("/proc")
_TRY_TIMEOUT = 5.0

_PDEATHSIG = ("setpriv", "--pdeathsig", "KILL", "--")
_PID_NAMESPACE = ("--pid", "--fork", "--kill-child=KILL", "--mount-proc", "--")

# Best first. In a PID namespace the tree dies with its first process, whatever it did to get away;
# as root it needs no user namespace, otherwise one that leaves the user who it is.
_GUARDS = (
    (*_PDEATHSIG, "unshare", *_PID_NAMESPACE),
    (*_PDEATHSIG, "unshare", "--map-current-user", *_PID_NAMESPACE),
    _PDEATHSIG,
)


async def find_guard() -> tuple[str, ...]:
    """The best command prefix that works on this machine; empty where none does.

    What it cannot do is left to `kill_marked`.
    """
    for guard in _GUARDS:
        if await _works(guard):
            return guard
    return ()


def kill_marked(slot_ids: Container[str], timeout: float) -> bool:
    """SIGKILL every process that carries one of these marks, until none is left.

    Blocks, so call it in a thread, at most `timeout` seconds; False if some would not go. It finds
    what left its process group and its parents, but not what emptied its own environment.
    """
    deadline = time.monotonic() + timeout
    while sum(_kill_if_marked(pid, slot_ids) for pid in _own_pids()):
        if time.monotonic() >= deadline:
            return False
        time.sleep(0.002)
    return True


async def _works(guard: tuple[str, ...]) -> bool:
    try:
        code, _ = await ended((*guard, "/bin/true"), os.environ, _TRY_TIMEOUT)
    except OSError:
        return False
    return code == 0


def _own_pids() -> list[int]:
    uid, found = os.getuid(), []
    for entry in os.scandir(_PROC):
        if entry.name.isdigit():
            with contextlib.suppress(OSError):
                if entry.stat().st_uid == uid:
                    found.append(int(entry.name))
    return found


def _kill_if_marked(pid: int, slot_ids: Container[str]) -> bool:
    # The pidfd comes first: what is read and what is killed are then one process, not one number.
    try:
        fd = os.pidfd_open(pid)
    except OSError:
        return False
    try:
        if _mark(pid) not in slot_ids:
            return False
        signal.pidfd_send_signal(fd, signal.SIGKILL)
    except OSError:
        return False
    finally:
        os.close(fd)
    return True


def _mark(pid: int) -> str:
    prefix = f"{MARKER}=".encode()
    for variable in (_PROC / str(pid) / "environ").read_bytes().split(b"\0"):
        if variable.startswith(prefix):
            return variable.removeprefix(prefix).decode("utf-8", "replace")
    return ""
