"""The check of the length of files and functions."""

import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).resolve().parents[2] / "scripts" / "check_size.py"


@pytest.mark.parametrize(
    ("source", "complaint"),
    [
        ("x = 1\n" * 501, "501 lines"),
        ("def f():\n" + "    pass\n" * 60, "`f` has 61 lines"),
        ("def f():\n" + "    pass\n" * 59 + "x = 1\n" * 440, ""),
    ],
    ids=["a long file", "a long function", "both at their limit"],
)
def test_what_is_too_long_is_named(tmp_path: Path, source: str, complaint: str) -> None:
    """A file has at most 500 lines and a function at most 60."""
    (tmp_path / "a.py").write_text(source)
    command = [sys.executable, str(SCRIPT), str(tmp_path), "no-such-folder"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
    assert done.returncode == (1 if complaint else 0)
    assert complaint in done.stdout
