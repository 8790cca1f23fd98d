"""Any archive at all: it is refused, or it stays in its directory; and the standard library agrees."""

import asyncio
import tarfile
import tempfile
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st
from store.archives import compressed, file, other, picture, small_archives, tar
from warmline_service.store import ArchiveRefused, ArchiveTooLarge

Member = tuple[tarfile.TarInfo, bytes]

_TYPES = (tarfile.REGTYPE, tarfile.DIRTYPE, tarfile.SYMTYPE, tarfile.SYMTYPE, tarfile.LNKTYPE)
_PART = st.sampled_from(["..", ".", "", "a", "b", "c", "a\n", "\udcff"])
_NAME = st.lists(_PART, min_size=1, max_size=4).map("/".join)
_MEMBER = st.builds(
    lambda name, type_, target: (
        file(name) if type_ == tarfile.REGTYPE else other(name, type_, target)
    ),
    _NAME,
    st.sampled_from(_TYPES),
    _NAME,
)
_GOOD = tar(
    file("a/" + "n" * 150, b"x" * 700),
    other("b", tarfile.DIRTYPE),
    other("b/link", tarfile.SYMTYPE, "../a"),
    file("b/\udcff", b"y"),
    format_=tarfile.PAX_FORMAT,
)
_CHANGES = st.lists(
    st.tuples(st.integers(0, len(_GOOD) - 1), st.integers(0, 255)), min_size=1, max_size=6
)


async def _restored(folder: Path, data: bytes) -> bool:
    (folder / "archive").write_bytes(compressed(data))
    (folder / "back").mkdir()
    async with small_archives() as archives:
        try:
            await archives.unpack(folder / "archive", folder / "back")
        except (ArchiveRefused, ArchiveTooLarge):
            return False
    return True


def _check(data: bytes) -> bool:
    """Whether it was restored; whatever happened, nothing is outside."""
    with tempfile.TemporaryDirectory() as made:
        folder = Path(made)
        restored = asyncio.run(_restored(folder, data))
        assert {path.name for path in folder.iterdir()} == {"archive", "back"}
        found = picture(folder / "back")
        assert restored or not found
        for name in found:
            path = folder / "back" / name.decode(errors="surrogateescape")
            assert path.parent.resolve().is_relative_to(folder.resolve() / "back")
        return restored


@settings(max_examples=300, deadline=None)
@given(members=st.lists(_MEMBER, max_size=5))
def test_members_of_any_kind_stay_inside(members: list[Member]) -> None:
    """Names, links and types in any combination; what we restore, `tarfile` would not refuse."""
    # Pythons before 3.11.4 have no such opinion.
    if _check(tar(*members)) and hasattr(tarfile, "data_filter"):
        with tempfile.TemporaryDirectory() as made:
            for info, _ in members:
                tarfile.data_filter(info, made)


@settings(max_examples=300, deadline=None)
@given(changes=_CHANGES, mend=st.booleans())
def test_damage_of_any_kind_stays_inside(changes: list[tuple[int, int]], mend: bool) -> None:
    """Bytes changed anywhere, with checksums that fit or do not."""
    data = bytearray(_GOOD)
    for place, value in changes:
        data[place] = value
        if mend:
            _mend(data, place - place % tarfile.BLOCKSIZE)
    _check(bytes(data))


def _mend(data: bytearray, start: int) -> None:
    """Give a header the checksum that it should have."""
    block = data[start : start + tarfile.BLOCKSIZE]
    block[148:156] = b" " * 8
    data[start + 148 : start + 156] = b"%06o\0 " % sum(block)
