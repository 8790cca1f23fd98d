"""The CLI's debug log is read in pieces, within a bound, and from the file alone that it writes."""

import os
from pathlib import Path

import pytest
from warmline_service.worker._debug import MOST_BYTES, DebugLog


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """Where it is written."""
    return tmp_path / "debug.log"


def test_each_reading_gives_what_is_new(file: Path) -> None:
    """Nothing while there is no file; then each line once."""
    log = DebugLog(file, [])
    assert log.read() == ("", 0)
    file.write_text("one\n")
    assert log.read() == ("one\n", 0)
    with file.open("a") as more:
        more.write("two\n")
    assert log.read() == ("two\n", 0)
    assert log.read() == ("", 0)


def test_of_too_much_the_end_counts(file: Path) -> None:
    """From a whole line on; what is left out is counted, and read no more."""
    lines = "".join(f"{number:07}\n" for number in range(MOST_BYTES // 8 + 10))
    file.write_text(f"{lines}x\n")
    log = DebugLog(file, [])
    text, dropped = log.read()
    assert len(text) + dropped == len(lines) + 2
    assert len(text) <= MOST_BYTES
    assert text.endswith("\nx\n")
    assert len(text.splitlines()[0]) == 7
    assert log.read() == ("", 0)


def test_what_is_secret_is_hidden(file: Path) -> None:
    """Also one that holds another."""
    file.write_text("a TOKEN and TOKEN-LONG\n")
    assert DebugLog(file, ["TOKEN", "TOKEN-LONG"]).read() == ("a [hidden] and [hidden]\n", 0)


def test_the_last_of_it_outlives_its_file(file: Path) -> None:
    """The slot is wiped when its process has ended."""
    log = DebugLog(file, [])
    file.write_text("last\n")
    log.seal()
    file.unlink()
    assert log.read() == ("last\n", 0)
    assert log.read() == ("", 0)


@pytest.mark.parametrize("kind", ["link", "pipe", "directory"])
def test_what_is_put_in_its_place_is_not_read(file: Path, tmp_path: Path, kind: str) -> None:
    """A tool of the session could lead the service to others' files, or keep it waiting."""
    (tmp_path / "others").write_text("others\n")
    if kind == "link":
        file.symlink_to(tmp_path / "others")
    elif kind == "pipe":
        os.mkfifo(file)
    else:
        file.mkdir()
    assert DebugLog(file, []).read() == ("", 0)


def test_one_that_was_cut_is_read_from_its_beginning(file: Path) -> None:
    """It is another file then."""
    log = DebugLog(file, [])
    file.write_text("long line\n")
    log.read()
    file.write_text("new\n")
    assert log.read() == ("new\n", 0)
