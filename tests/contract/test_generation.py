"""The generated files and the released contract, and the checks over them."""

import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


def run_script(name: str, *words: str | Path) -> subprocess.CompletedProcess[str]:
    """Run one of scripts/ to its end."""
    return subprocess.run(
        [sys.executable, str(ROOT / "scripts" / name), *map(str, words)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """A tree with the contract alone."""
    shutil.copy(ROOT / "buf.yaml", tmp_path)
    shutil.copytree(ROOT / "proto", tmp_path / "proto")
    shutil.copytree(ROOT / "third_party", tmp_path / "third_party")
    return tmp_path


def edit(root: Path, file: str, change: Callable[[str], str]) -> None:
    """Rewrite one file of the contract below `root`; the change must change it."""
    path = root / "proto" / "warmline" / "v1" / file
    before = path.read_text()
    path.write_text(change(before))
    assert path.read_text() != before


def test_the_contract_breaks_no_released_one() -> None:
    """What was released is kept."""
    done = run_script("contract.py", "check")
    assert done.returncode == 0, done.stdout


def test_an_added_field_is_allowed(copy: Path) -> None:
    """The contract grows by addition."""
    edit(copy, "events.proto", lambda text: text + "// New.\nmessage Added {}\n")
    assert run_script("contract.py", "check", "--root", copy).returncode == 0


@pytest.mark.parametrize(
    ("before", "after", "reason"),
    [
        ("  // For people.\n  string display_name = 4;\n", "", "display_name"),
        ("string display_name = 4;", "string display_name = 14;", "display_name"),
        ("string display_name = 4;", "string title = 4;", "display_name"),
        ("bool is_default = 8;", "string is_default = 8;", "is_default"),
    ],
    ids=["removed", "renumbered", "renamed", "retyped"],
)
def test_a_breaking_change_is_found(copy: Path, before: str, after: str, reason: str) -> None:
    """A field that callers know keeps its number, name and type."""
    edit(copy, "model_service.proto", lambda text: text.replace(before, after))
    done = run_script("contract.py", "check", "--root", copy)
    assert done.returncode != 0
    assert reason in done.stdout


def test_a_lost_rpc_is_found(copy: Path) -> None:
    """A method that callers know stays."""
    edit(copy, "model_service.proto", lambda text: text.replace("rpc GetModel(", "rpc FindModel("))
    done = run_script("contract.py", "check", "--root", copy)
    assert done.returncode != 0
    assert "GetModel" in done.stdout
