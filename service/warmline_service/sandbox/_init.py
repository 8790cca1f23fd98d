"""The first process of a box, which is its others' end: to be ended, and to be waited for."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import time

_LONGEST = 4096
_PAUSE = 0.002


class Init:
    """Known by what bubblewrap reports to a pipe, of which this owns the reading end."""

    def __init__(self, report: int) -> None:
        os.set_blocking(report, False)
        self._report = report

    def end(self, timeout: float) -> None:
        """End it, and with it all that is in the box; call when the launcher has ended.

        Blocks for `timeout` seconds at most, until nothing is left. It is ours where this process adopts
        orphans; otherwise whoever does will find it ended. May be called twice.
        """
        if self._report < 0:
            return
        said = b""
        with contextlib.suppress(BlockingIOError):
            said = os.read(self._report, _LONGEST)
        os.close(self._report)
        self._report = -1
        found = re.search(rb'"child-pid": (\d+)', said)
        if found is not None:
            with contextlib.suppress(ChildProcessError):
                _end_child(int(found[1]), time.monotonic() + timeout)


def _end_child(pid: int, deadline: float) -> None:
    """Raises ChildProcessError for what is no child of this process: its number may be another's."""
    flags = os.WEXITED | os.WNOHANG
    if os.waitid(os.P_PID, pid, flags) is not None:
        return
    os.kill(pid, signal.SIGKILL)
    while os.waitid(os.P_PID, pid, flags) is None and time.monotonic() < deadline:
        time.sleep(_PAUSE)
