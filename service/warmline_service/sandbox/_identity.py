"""Namespaces of users, made by root for one process each."""

from __future__ import annotations

import os
import select
import subprocess
from pathlib import Path

from warmline_service.sandbox._box import Owner
from warmline_service.sandbox._kernel_file import tell_kernel

_TIMEOUT = 5.0


def new_user_namespace(unshare: str, owner: Owner) -> int:
    """A descriptor of a new namespace in which only root and `owner` are known, each as itself.

    Its root has no rights outside of it. Blocks; only for root. Raises OSError.
    """
    # It lives as long as something refers to it: the program at first, our descriptor later.
    with subprocess.Popen(
        (unshare, "--user", "--", "cat"),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env={"PATH": "/usr/bin:/bin"},
        bufsize=0,
    ) as program:
        assert program.stdin is not None
        assert program.stdout is not None
        try:
            # What answers is in it.
            program.stdin.write(b".")
            ready, _, _ = select.select([program.stdout], [], [], _TIMEOUT)
            if not ready or program.stdout.read(1) != b".":
                raise OSError("no namespace of users could be made")
            about = Path(f"/proc/{program.pid}")
            tell_kernel(about / "uid_map", f"0 0 1\n{owner.uid} {owner.uid} 1\n")
            tell_kernel(about / "gid_map", f"0 0 1\n{owner.gid} {owner.gid} 1\n")
            return os.open(about / "ns" / "user", os.O_RDONLY | os.O_CLOEXEC)
        finally:
            program.kill()
