"""What the service asks of Python and of the machine for itself, once, when it runs alone in its process."""

from __future__ import annotations

import ctypes
import gc
import sys
from collections.abc import Coroutine
from typing import Any, TypeVar

import uvloop

_PR_SET_DUMPABLE, _PR_SET_CHILD_SUBREAPER = 4, 36
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
