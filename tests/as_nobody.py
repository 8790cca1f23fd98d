"""Runs `warmline` as a user without rights, whose Python and packages may be root's alone.

The right to read them is this process's only: what it starts has none.
"""

import ctypes
import os
import sys

NOBODY = 65534
_PR_CAP_AMBIENT, _CLEAR_ALL = 47, 4


def command(*arguments: str) -> tuple[str, ...]:
    """What starts it so; as it is, where this is no root."""
    program = (sys.executable, __file__, *arguments)
    if os.geteuid():
        return program
    rights = ("--inh-caps=+dac_read_search", "--ambient-caps=+dac_read_search")
    user = (f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups")
    return ("setpriv", *user, *rights, "--", *program)


if __name__ == "__main__":
    if ctypes.CDLL(None).prctl(_PR_CAP_AMBIENT, _CLEAR_ALL, 0, 0, 0):
        raise SystemExit("the ambient capabilities could not be given up")
    from warmline_service.cli import main

    main()
