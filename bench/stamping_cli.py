"""The fake CLI, each of whose deltas says when it was written, in nanoseconds of the machine's clock."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import Any

_ROOT = Path(__file__).parents[1]


def install(directory: Path) -> Path:
    """Put an executable for it into `directory`; its path."""
    directory.mkdir(parents=True, exist_ok=True)
    binary = directory / "claude"
    paths = [str(_ROOT), str(_ROOT / "tests")]
    binary.write_text(
        f"#!{sys.executable} -IS\nimport sys\nsys.path[:0] = {paths!r}\n"
        "from bench.stamping_cli import main\nmain()\n",
        encoding="utf-8",
    )
    binary.chmod(0o755)
    return binary


def stamps(text: str) -> list[int]:
    """The times in a text of one delta or several joined ones."""
    return [int(each) for each in text.split()]


def main() -> None:
    """Be it."""
    import fake_cli  # found only by the path that the executable sets

    class StampingCli(fake_cli.FakeCli):
        def delta(self, text: str) -> dict[str, Any]:
            """Every delta is a time, whatever was to be said."""
            return super().delta(f"{time.monotonic_ns()} ")

    fake_cli.FakeCli = StampingCli  # type: ignore[misc]  # the module makes one of this name
    fake_cli.main()
