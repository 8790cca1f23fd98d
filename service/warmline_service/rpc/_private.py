"""A socket for this machine's own shim: plain text, in a directory that is the service's alone."""

from __future__ import annotations

import os
from pathlib import Path

# sun_path has 108 bytes, the last of them NUL.
_LONGEST_PATH = 107


def private_address(data_dir: Path) -> str:
    """Where it is, for gRPC, in a directory that is made if missing; what an earlier service left is gone.

    Blocks for some file system calls. Raises OSError, and ValueError where the path is too long.
    """
    folder = data_dir.expanduser().absolute() / "http"
    path = folder / "grpc.sock"
    size = len(os.fsencode(path))
    if size > _LONGEST_PATH:
        raise ValueError(
            f"data_dir: the path of the socket for HTTP has {size} bytes, {_LONGEST_PATH} are possible: "
            "choose a shorter one."
        )
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    folder.chmod(0o700)
    path.unlink(missing_ok=True)
    return f"unix:{path}"
