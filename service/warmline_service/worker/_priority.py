"""A process's claim on the CPU: behind the service, which all of them need to be heard."""

from __future__ import annotations

import contextlib
import errno
import os
import time
from pathlib import Path

from warmline_service.worker._usage import tree

# Without privileges the kernel takes one change of an autogroup in 100 ms, of all together.
_AGAIN = 0.11
_TRIES = 20
# Of -1000 to 1000; that of a service is 0.
_FIRST = "700"


def go_first(pid: int) -> None:
    """Have the kernel end a process and all below it before the service, where memory runs out."""
    for each in tree(pid):
        with contextlib.suppress(OSError):
            Path(f"/proc/{each}/oom_score_adj").write_text(_FIRST)


def give_way(pid: int, nice: int) -> None:
    """Lower the priority of the process group and session that `pid` leads; blocks up to 2 s.

    Where the kernel groups sessions (`sched_autogroup`), each session gets the same share of the CPU
    as the whole service, and a process's own nice value counts only within its session. So the
    session's is set too. A process that has ended is passed over.
    """
    with contextlib.suppress(ProcessLookupError):
        os.setpriority(os.PRIO_PGRP, pid, nice)
    group = Path(f"/proc/{pid}/autogroup")
    for _ in range(_TRIES):
        try:
            group.write_text(str(nice))
        except (FileNotFoundError, ProcessLookupError):
            return  # No such kernel feature, or no such process any more.
        except OSError as error:
            if error.errno != errno.EAGAIN:
                return  # It goes on at its usual priority.
            time.sleep(_AGAIN)
        else:
            return
