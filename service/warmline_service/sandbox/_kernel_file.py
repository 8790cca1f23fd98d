"""Files that are the kernel's own."""

from __future__ import annotations

import os
from pathlib import Path


def tell_kernel(path: Path, text: str) -> None:
    """Write what there is to say as one write, which is how the kernel takes it. Raises OSError.

    The file is not made where it is missing: the kernel makes what there is.
    """
    file = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(file, text.encode())
    finally:
        os.close(file)
