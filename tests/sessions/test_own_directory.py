"""A directory of ours is made and found name by name; whatever was put in its way is refused."""

import os
from pathlib import Path

import pytest
from warmline_service.errors import WarmlineError
from warmline_service.sessions._files import PlacedFile
from warmline_service.sessions._own_directory import own_directory, reach_directory
from warmline_service.sessions._place import place_files


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


def test_a_group_has_the_last_one_and_all_in_it(tmp_path: Path) -> None:
    """Also what was there before it was shared, and what is put there; a link leads the change nowhere."""
    own_directory(tmp_path, "one", "two")
    outside = tmp_path / "outside"
    outside.touch(mode=0o600)
    inside = tmp_path / "one" / "two"
    (inside / "sub").mkdir(mode=0o700)
    (inside / "sub" / "run").touch(mode=0o700)
    (inside / "link").symlink_to(outside)
    group = _another_group()
    place = own_directory(tmp_path, "one", "two", group=group)
    place_files(place, [PlacedFile("new/file", b"x")], "files", shared=True)
    modes = {
        name: (place / name).stat().st_mode & 0o7777
        for name in ("", "sub", "sub/run", "new", "new/file")
    }
    assert modes == {"": 0o2770, "sub": 0o2770, "sub/run": 0o770, "new": 0o2770, "new/file": 0o660}
    assert {(place / name).stat().st_gid for name in modes} == {group}
    assert place.parent.stat().st_mode & 0o777 == 0o700
    assert outside.stat().st_mode & 0o777 == 0o600
    assert outside.stat().st_gid != group or os.geteuid()


def _another_group() -> int:
    """One that this user may give files to."""
    return 1_900_000_000 if os.geteuid() == 0 else os.getegid()


def test_a_processs_directory_is_reached_without_taking_it(tmp_path: Path) -> None:
    """Whoever owns it, with the modes that it has; what was locked can be read, and a link is refused."""
    place = tmp_path / "slot" / "work"
    place.mkdir(parents=True)
    place.parent.chmod(0o755)
    place.chmod(0o070)
    reach_directory(tmp_path, "slot", "work")
    assert [path.stat().st_mode & 0o777 for path in (place.parent, place)] == [0o755, 0o770]
    place.rmdir()
    place.symlink_to("/etc")
    with pytest.raises(WarmlineError, match="STORAGE_UNAVAILABLE"):
        reach_directory(tmp_path, "slot", "work")
