"""The checks of tests/conftest.py: each is proven by a test that breaks its rule."""

import os
import re
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
BAD = """
import asyncio, os, socket, subprocess, sys, tempfile
import pytest

SLEEP = [sys.executable, "-c", "import time; time.sleep(60)"]
ORPHAN = f"import subprocess; subprocess.Popen({SLEEP}, start_new_session=True)"

async def test_task():
    asyncio.create_task(asyncio.sleep(60))

def test_child():
    subprocess.Popen(SLEEP, start_new_session=True)

def test_orphan():
    subprocess.run([sys.executable, "-c", ORPHAN], check=True)

def test_directory():
    tempfile.mkdtemp()

def test_socket(tmp_path):
    with socket.socket(socket.AF_UNIX) as made:
        os.chdir(tmp_path)
        made.bind("s")

def test_slot(tmp_path):
    (tmp_path / "data" / "slots" / "1").mkdir(parents=True)

def test_skip():
    pytest.skip("no such tool")

async def test_task_that_ends():
    asyncio.create_task(asyncio.sleep(0.01))

def test_nothing(tmp_path):
    (tmp_path / "kept").touch()
"""


def run_bad_tests(folder: Path, env: Mapping[str, str]) -> dict[str, set[str]]:
    """Run BAD under our conftest; the tests' names by `FAILED`, `ERROR`, `PASSED` and `SKIPPED`."""
    (folder / "test_bad.py").write_text(BAD)
    command = [sys.executable, "-m", "pytest", "-c", str(ROOT / "pyproject.toml"), "-p", "conftest"]
    done = subprocess.run(
        [*command, "-rA", "--tb=no", "-p", "no:cacheprovider", "-p", "no:unraisableexception", "."],
        cwd=folder,
        env={**os.environ, **env},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    found: dict[str, set[str]] = {}
    for outcome, name in re.findall(r"^([A-Z]+) .*?::test_(\w+)", done.stdout, re.MULTILINE):
        found.setdefault(outcome, set()).add(name)
    return found


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory: pytest.TempPathFactory) -> dict[str, set[str]]:
    """What became of the tests in BAD, under CI."""
    return run_bad_tests(tmp_path_factory.mktemp("bad"), {"CI": "true", "LEAK_GRACE": "0.3"})


@pytest.mark.parametrize("name", ["task", "child", "orphan", "directory", "socket", "slot"])
def test_what_is_left_behind_is_an_error(outcomes: dict[str, set[str]], name: str) -> None:
    """A task, process, directory, socket or slot that outlives its test fails it."""
    assert name in outcomes["ERROR"]


def test_a_skip_fails_in_ci(outcomes: dict[str, set[str]]) -> None:
    """No skip hides a missing dependency."""
    assert outcomes["FAILED"] == {"skip"}
    assert "SKIPPED" not in outcomes


def test_a_clean_test_passes(outcomes: dict[str, set[str]]) -> None:
    """A task that ends by itself, and files in `tmp_path`, are no leak."""
    assert outcomes["PASSED"] - outcomes["ERROR"] == {"task_that_ends", "nothing"}


async def test_a_blocking_call_of_the_service_is_an_error() -> None:
    """The service may not block the loop; others may."""
    import warmline_service

    place = str(Path(warmline_service.__file__).with_name("made_up.py"))
    scope: dict[str, object] = {}
    code = compile("import time\ndef block(): time.sleep(0)", place, "exec")
    exec(code, scope)  # noqa: S102 - the code is the line above
    block = scope["block"]
    assert callable(block)
    with pytest.raises(Exception, match=r"time\.sleep"):
        block()
