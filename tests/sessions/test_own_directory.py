"""A directory of ours is made and found name by name; whatever was put in its way is refused."""

import os
from pathlib import Path

import pytest
from warmline_service.errors import WarmlineError
from warmline_service.sessions._own_directory import own_directory


def test_it_is_made_private_and_found_again(tmp_path: Path) -> None:
    """Each of its names 0700, whatever they were before."""
    place = own_directory(tmp_path, "one", "two")
    (tmp_path / "one").chmod(0o755)
    assert own_directory(tmp_path, "one", "two") == place
    assert [path.stat().st_mode & 0o777 for path in (place, place.parent)] == [0o700] * 2


@pytest.mark.parametrize("name", ["one", "two"])
@pytest.mark.parametrize("kind", ["link", "dangling link", "file", "no room"])
def test_what_is_in_its_way_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, kind: str
) -> None:
    """STORAGE_UNAVAILABLE, at any of its names; nothing is made where a link leads."""
    root, elsewhere = tmp_path / "root", tmp_path / "elsewhere"
    place = root / "one" / "two" if name == "two" else root / "one"
    place.parent.mkdir(parents=True)
    elsewhere.mkdir()
    if kind == "file":
        place.touch()
    elif kind == "no room":
        monkeypatch.setattr(os, "mkdir", _no_room)
    else:
        place.symlink_to(elsewhere if kind == "link" else tmp_path / "nowhere")
    with pytest.raises(WarmlineError, match="STORAGE_UNAVAILABLE"):
        own_directory(root, "one", "two")
    assert not list(elsewhere.iterdir())
    assert not (tmp_path / "nowhere").exists()


def _no_room(path: object, mode: int = 0o777, *, dir_fd: int | None = None) -> None:
    raise OSError(28, "No space left on device")


def test_another_users_directory_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Even by root, whom nothing else would stop."""
    own_directory(tmp_path, "one", "two")
    monkeypatch.setattr(os, "geteuid", lambda: os.getuid() + 1)
    with pytest.raises(WarmlineError, match="somebody else"):
        own_directory(tmp_path, "one", "two")
