"""The first process of a box, which is its others' end: to be ended, and to be waited for."""

from __future__ import annotations

import contextlib
import os
import re
import select
import signal
import time

_LONGEST = 4096
_PAUSE = 0.002


class Init:
    """Known by what bubblewrap reports to a pipe, of which this owns the reading end."""

    def __init__(self, report: int) -> None:
        os.set_blocking(report, False)
        self._report = report
        self._said = b""

    def pid(self, timeout: float = 0.0) -> int | None:
        """Its number, where that is told within `timeout` seconds, for which it blocks; not after `end`."""
        deadline = time.monotonic() + timeout
        waiting = select.poll()
        waiting.register(self._report, select.POLLIN)
        while (found := re.search(rb'"child-pid": (\d+)', self._said)) is None:
            left = max(deadline - time.monotonic(), 0.0)
            if not waiting.poll(left * 1000):
                return None
            said = os.read(self._report, _LONGEST)
            if not said:
                return None
            self._said += said
        return int(found[1])

    def end(self, timeout: float) -> None:
        """End it, and with it all that is in the box; call when the launcher has ended.

        Blocks for `timeout` seconds at most, until nothing is left. It is ours where this process adopts
        orphans; otherwise whoever does will find it ended. May be called twice.
        """
        if self._report < 0:
            return
        pid = self.pid()
        os.close(self._report)
        self._report = -1
        if pid is not None:
            with contextlib.suppress(ChildProcessError):
                _end_child(pid, time.monotonic() + timeout)


def _end_child(pid: int, deadline: float) -> None:
    """Raises ChildProcessError for what is no child of this process: its number may be another's."""
    flags = os.WEXITED | os.WNOHANG
    if os.waitid(os.P_PID, pid, flags) is not None:
        return
    os.kill(pid, signal.SIGKILL)
    while os.waitid(os.P_PID, pid, flags) is None and time.monotonic() < deadline:
        time.sleep(_PAUSE)
