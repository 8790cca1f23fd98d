"""Which links can lead out: decided without a disk, checked against one."""

import errno
import os
import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from warmline_service.store._archive_bounds import ArchiveRefused
from warmline_service.store._archive_names import member_parts, stays_inside

_FOLDERS = ["", "a", "a/b", "a/b/c"]
_PART = st.sampled_from(["..", "..", ".", "", "a", "b", "c", "l0", "l1", "l2", "l3"])
_LINKS = st.lists(
    st.tuples(st.sampled_from(_FOLDERS), st.lists(_PART, min_size=1, max_size=6).map("/".join)),
    max_size=4,
)


@settings(max_examples=200, deadline=None)
@given(links=_LINKS)
def test_no_chain_of_accepted_links_leaves(links: list[tuple[str, str]]) -> None:
    """Wherever they stand, and whatever they are combined to."""
    with tempfile.TemporaryDirectory() as made:
        # Outside is the same to see as inside, so that whatever leaves arrives somewhere.
        outside = [Path(made, *["a"] * depth) for depth in range(6)]
        root = outside[-1] / "root"
        for folder in [*outside, root]:
            (folder / "a" / "b" / "c").mkdir(parents=True, exist_ok=True)
        for number, (place, target) in enumerate(links):
            if stays_inside(target, len(member_parts(place))):
                (root / place / f"l{number}").symlink_to(target)
        for path in [path for path in root.rglob("*") if path.is_symlink()]:
            end = _end(path)
            assert end is None or end.is_relative_to(root)


def _end(path: Path) -> Path | None:
    """Where the kernel comes out; None for nowhere."""
    try:
        descriptor = os.open(path, os.O_PATH)
    except OSError as error:
        if error.errno not in {errno.ENOENT, errno.ENOTDIR, errno.ELOOP}:
            raise
        return None
    try:
        return Path(f"/proc/self/fd/{descriptor}").readlink()
    finally:
        os.close(descriptor)


@pytest.mark.parametrize(
    ("target", "depth", "inside"),
    [
        ("a", 0, True),
        ("../a", 1, True),
        ("../../a", 2, True),
        ("./a//b/", 0, True),
        ("..", 0, False),
        ("../a", 0, False),
        ("../../a", 1, False),
        ("a/../b", 1, False),
        ("/etc/passwd", 3, False),
        ("", 0, False),
    ],
)
def test_a_link_may_climb_only_first_and_not_above_the_top(
    target: str, depth: int, inside: bool
) -> None:
    """`a/..` is refused although it looks harmless: `a` may be a link to somewhere shallow."""
    assert stays_inside(target, depth) is inside


@pytest.mark.parametrize(
    "name", ["/etc/passwd", "..", "a/../../b", "../x", "a\0b", "x" * 256, "//x"]
)
def test_a_name_that_leads_elsewhere_is_refused(name: str) -> None:
    """Nothing is repaired: who writes such a name has a reason."""
    with pytest.raises(ArchiveRefused):
        member_parts(name)


def test_dots_and_empty_parts_mean_nothing() -> None:
    """As other tools write them."""
    assert member_parts("./a//b/./c/") == ("a", "b", "c")
    assert member_parts("./") == ()
