"""What the service asks of Python and of the machine for itself, once, when it runs alone in its process."""

from __future__ import annotations

import ctypes
import gc
import os
import platform
import resource
import struct
import sys
from collections.abc import Coroutine
from pathlib import Path
from typing import Any, TypeVar

import uvloop

_PR_SET_DUMPABLE, _PR_SET_CHILD_SUBREAPER = 4, 36
# The number of sched_setattr, which the C library has no function for before glibc 2.41.
_SCHED_SETATTR = {"x86_64": 314, "aarch64": 274}
# struct sched_attr: size, policy, flags, nice, priority, runtime, deadline, period.
_SCHED_ATTR = struct.Struct("=IIQiIQQQ")
_SCHED_FLAG_RESET_ON_FORK = 1
# In nanoseconds; the kernel takes 0.1 to 100 ms.
_SLICE = 200_000
_SWITCH_INTERVAL = 0.0005
# Objects before the young are searched, and how many searches before the older are.
_GC_THRESHOLDS = (20_000, 20, 20)

T = TypeVar("T")


def run_service(main: Coroutine[Any, Any, T]) -> T:
    """Run the service's main coroutine, on uvloop: it takes a good part less of the processor."""
    return uvloop.run(main)


def hide_memory() -> None:
    """Keep other processes of this user out of the service's memory and its first environment.

    Raises OSError where the kernel refuses. Root can look all the same.
    """
    if ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0):
        raise OSError(ctypes.get_errno(), "PR_SET_DUMPABLE")


def adopt_orphans() -> None:
    """Become the parent of every descendant whose own parent ends: what is in a sandbox has to be waited for.

    Raises OSError.
    """
    if ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0):
        raise OSError(ctypes.get_errno(), "PR_SET_CHILD_SUBREAPER")


def open_many_files() -> None:
    """Have as many files open as the machine allows: a CLI process takes half a dozen, and 1,024 is usual."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


def settle_memory() -> None:
    """Have the garbage collector pass over what is there now, for good, and look more rarely.

    Call when all is started. What a delta needs is freed by its reference counts, and
    the default of a search for every 700 objects took a twelfth of the loop's time under load.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(*_GC_THRESHOLDS)


def share_time() -> None:
    """Let threads have their turn soon: the store's writer waits for one at every statement.

    By default a busy event loop keeps them waiting for 5 ms.
    """
    sys.setswitchinterval(_SWITCH_INTERVAL)


def be_prompt() -> None:
    """Have the kernel run the service's threads soon when there is something to do, for short times each.

    A thread that wakes up waits for the slice of the one that runs, 1 to 3 ms, unless its own is shorter
    (Linux 6.12 and newer). On two cores the first text of a hot turn was told 2.7 ms after the CLI had
    written it, instead of 4.0. Processes that are started do not inherit it. Call when all is started.
    """
    number = _SCHED_SETATTR.get(platform.machine())
    if number is None:
        return
    call = ctypes.CDLL(None).syscall
    for thread in Path("/proc/self/task").iterdir():
        tid = int(thread.name)
        try:
            nice = os.getpriority(os.PRIO_PROCESS, tid)
            policy = os.sched_getscheduler(tid) & ~os.SCHED_RESET_ON_FORK
        except ProcessLookupError:
            continue
        if policy != os.SCHED_OTHER:
            continue  # Somebody wants it otherwise.
        size, flags = _SCHED_ATTR.size, _SCHED_FLAG_RESET_ON_FORK
        attributes = _SCHED_ATTR.pack(size, policy, flags, nice, 0, _SLICE, 0, 0)
        # What refuses has no such slices.
        call(ctypes.c_long(number), tid, attributes, 0)
