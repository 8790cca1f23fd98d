"""Archives of workspaces that mean harm: one test for each thing that untrusted code can leave there."""

import asyncio
import ctypes
import io
import os
import socket
import stat
import tarfile
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
import zstandard
from running import until
from store.archives import LIMITS, Picture, picture, small_archives
from warmline_service.store import ArchiveLimits, Archives, ArchiveStats, ArchiveTooLarge
from warmline_service.store import _tree_reader as tree_reader
from warmline_service.store._archive_bounds import Meter
from warmline_service.store._tree_reader import walk

SECRET = b"the secret outside"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A workspace with one harmless file, beside a secret that is none of its business."""
    (tmp_path / "secret").write_bytes(SECRET)
    root = tmp_path / "root"
    root.mkdir()
    (root / "kept").write_text("kept")
    return root


async def _pack(root: Path, archives: Archives) -> ArchiveStats:
    stats = await archives.pack(root, root.parent / "archive")
    assert stats
    return stats


async def _kept(root: Path) -> tuple[Picture, int]:
    """What comes back, and how much was passed over."""
    back = root.parent / "back"
    back.mkdir()
    async with small_archives() as archives:
        stats = await _pack(root, archives)
        await archives.unpack(root.parent / "archive", back)
    found = picture(back)
    assert not [entry for entry in found.values() if SECRET in entry[2]]
    return found, stats.skipped


@pytest.mark.parametrize("target", ["../secret", "sub/../../secret", "/etc/passwd", "sub/../kept"])
async def test_a_link_that_could_lead_out_is_passed_over(root: Path, target: str) -> None:
    """It is neither followed nor kept."""
    (root / "sub").mkdir()
    (root / "link").symlink_to(target)
    found, skipped = await _kept(root)
    assert (set(found), skipped) == ({b"kept", b"sub"}, 1)


async def test_a_link_to_a_directory_is_not_entered(root: Path) -> None:
    """Its content would be there twice, or for ever."""
    (root / "loop").symlink_to(".")
    found, _ = await _kept(root)
    assert found[b"loop"] == ("link", 0, b".")
    assert set(found) == {b"kept", b"loop"}


async def test_the_workspace_itself_may_not_be_a_link(root: Path, tmp_path: Path) -> None:
    """Whoever replaced it by one is not obeyed."""
    (tmp_path / "other").symlink_to(root)
    async with small_archives() as archives:
        with pytest.raises(Exception, match="STORAGE_UNAVAILABLE"):
            await archives.pack(tmp_path / "other", tmp_path / "archive")
    assert not (tmp_path / "archive").exists()


async def test_a_hard_link_becomes_a_file_of_its_own(root: Path) -> None:
    """No archive holds a link to an inode; the kernel guards who may make one to what."""
    os.link(root / "kept", root / "again")
    found, _ = await _kept(root)
    assert found[b"again"] == found[b"kept"]
    assert (root.parent / "back" / "again").stat().st_nlink == 1


async def test_what_is_no_file_is_passed_over_and_not_opened(root: Path) -> None:
    """A FIFO would wait for ever, a device would do something, a socket is only a name."""
    os.mkfifo(root / "fifo")
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(os.path.relpath(root / "socket"))
    expected = 2
    if os.geteuid() == 0:
        os.mknod(root / "device", stat.S_IFCHR | 0o666, os.makedev(1, 3))
        expected = 3
    found, skipped = await _kept(root)
    (root / "socket").unlink()
    assert (set(found), skipped) == ({b"kept"}, expected)


async def test_no_privilege_is_kept(root: Path) -> None:
    """setuid, setgid, sticky and write by others are dropped; exec bits stay."""
    (root / "kept").chmod(0o7777)
    (root / "sub").mkdir()
    (root / "sub").chmod(0o7777)
    found, _ = await _kept(root)
    assert {entry[1] for entry in found.values()} == {0o755}


async def test_an_archive_offers_no_privilege_to_other_tools(root: Path) -> None:
    """Nor does it say whose the files were, or who made it."""
    (root / "kept").chmod(0o6777)
    async with small_archives() as archives:
        await _pack(root, archives)
    data = (
        zstandard.ZstdDecompressor()
        .decompressobj()
        .decompress((root.parent / "archive").read_bytes())
    )
    with tarfile.open(fileobj=io.BytesIO(data)) as archive:
        info = archive.getmember("kept")
    assert (info.mode, info.uid, info.gid, info.uname, info.gname) == (0o755, 0, 0, "", "")


async def test_names_of_any_bytes_are_kept(root: Path) -> None:
    """Newlines, invalid UTF-8, what looks like an option or an escape."""
    names = [b"a\nb", b"\xff\xfe", b"-rf", b"\x1b[31m", b" ", b"..."]
    for name in names:
        (root / os.fsdecode(name)).write_text("x")
    found, _ = await _kept(root)
    assert set(found) == {b"kept", *names}


async def test_what_may_not_be_read_is_passed_over(root: Path) -> None:
    """A directory keeps its place without its content; nothing else is lost by it."""
    (root / "closed").mkdir()
    (root / "closed" / "inner").write_text("x")
    (root / "unreadable").write_text("x")
    (root / "closed").chmod(0)
    (root / "unreadable").chmod(0)
    # Who is asked for permission is a thread's own affair.
    result = await asyncio.to_thread(_walked_as_nobody, root)
    (root / "closed").chmod(0o700)
    assert result == ([("closed", "directory"), ("kept", "file")], 2)


def _walked_as_nobody(root: Path) -> tuple[list[tuple[str, str]], int]:
    meter = Meter(LIMITS, threading.Event())
    descriptor = os.open(root, os.O_RDONLY)
    libc = ctypes.CDLL(None)
    libc.setfsuid(65534 if os.geteuid() == 0 else os.geteuid())
    try:
        found = [(entry.path, entry.kind.value) for entry in walk(descriptor, meter)]
    finally:
        libc.setfsuid(os.geteuid())
        os.close(descriptor)
    return found, meter.skipped


async def _fails_with(root: Path, limit: str) -> None:
    async with small_archives() as archives:
        with pytest.raises(ArchiveTooLarge) as caught:
            await archives.pack(root, root.parent / "archive")
    assert caught.value.limit == limit
    assert limit in str(caught.value)
    assert not (root.parent / "archive").exists()


def _sparse(path: Path, size: int) -> None:
    with path.open("wb") as file:
        file.truncate(size)


def _heavy(root: Path) -> None:
    for n in range(3):
        _sparse(root / str(n), LIMITS.file_bytes)


def _many(root: Path) -> None:
    for n in range(LIMITS.members + 1):
        (root / str(n)).touch()


def _deep(root: Path) -> None:
    root.joinpath(*["d"] * (LIMITS.depth + 1)).mkdir(parents=True)


def _long(root: Path) -> None:
    root.joinpath(*["d" * 250] * 3).mkdir(parents=True)
    folder = os.open(root.joinpath(*["d" * 250] * 3), os.O_RDONLY)
    for _ in range(20):
        os.mkdir("d" * 250, dir_fd=folder)  # deeper than any path can say
        inner = os.open("d" * 250, os.O_RDONLY, dir_fd=folder)
        os.close(folder)
        folder = inner
    os.close(folder)


@pytest.mark.parametrize(
    ("plant", "limit"),
    [
        (lambda root: _sparse(root / "giant", 2**40), "file_bytes"),
        (_heavy, "total_bytes"),
        (_many, "members"),
        (_deep, "depth"),
    ],
    ids=["a sparse giant", "many large files", "many small files", "deep"],
)
async def test_each_bound_ends_it_by_its_name(
    root: Path, plant: Callable[[Path], object], limit: str
) -> None:
    """Before the bytes are read, and leaving no file."""
    plant(root)
    await _fails_with(root, limit)


async def test_time_is_a_bound_too(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A tree that grows as fast as it is read comes to an end."""
    monkeypatch.setattr(Meter, "check", _late)
    await _fails_with(root, "seconds")


def _late(meter: Meter) -> None:
    raise ArchiveTooLarge("seconds", meter.limits.seconds)


async def test_a_path_longer_than_any_path_is_a_bound(root: Path) -> None:
    """Directories can be nested beyond what one name can say."""
    limits = ArchiveLimits(depth=64)
    await asyncio.to_thread(_long, root)
    archives = Archives(limits)
    with pytest.raises(ArchiveTooLarge) as caught:
        await archives.pack(root, root.parent / "archive")
    assert caught.value.limit == "path_bytes"
    await archives.aclose()


async def _with_change(
    root: Path, monkeypatch: pytest.MonkeyPatch, change: Callable[[], object]
) -> tuple[Picture, int]:
    """What is kept when `change` happens after names were listed, and before any is opened."""
    real = tree_reader._Walk._names

    def names(walk: tree_reader._Walk, folder: int) -> list[str]:
        found = real(walk, folder)
        change()
        return found

    monkeypatch.setattr(tree_reader._Walk, "_names", names)
    return await _kept(root)


async def test_what_vanishes_is_passed_over(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Between its name being read and its being opened."""
    (root / "gone").write_text("x")
    found, skipped = await _with_change(
        root, monkeypatch, lambda: (root / "gone").unlink(missing_ok=True)
    )
    assert (set(found), skipped) == ({b"kept"}, 1)


async def test_a_file_that_becomes_a_link_is_not_followed(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The oldest trick: a link in its place, at the last moment."""
    (root / "swapped").write_text("x")

    def swap() -> None:
        (root / "swapped").unlink()
        (root / "swapped").symlink_to("../secret")

    found, skipped = await _with_change(root, monkeypatch, swap)
    assert (set(found), skipped) == ({b"kept"}, 1)


async def test_a_directory_that_becomes_a_link_is_not_entered(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same with a directory."""
    (root / "swapped").mkdir()

    def swap() -> None:
        (root / "swapped").rmdir()
        (root / "swapped").symlink_to("..")

    found, skipped = await _with_change(root, monkeypatch, swap)
    assert (set(found), skipped) == ({b"kept"}, 1)


@pytest.mark.parametrize("size", [0, 10, 200_000], ids=["emptied", "cut", "grown"])
async def test_a_file_that_changes_while_it_is_read_harms_nothing_else(
    root: Path, monkeypatch: pytest.MonkeyPatch, size: int
) -> None:
    """It has the size that its header says, and the members after it are where they belong."""
    (root / "changing").write_bytes(b"x" * 100_000)
    real = tree_reader._time

    def resize(found: os.stat_result) -> int:
        os.truncate(root / "changing", size)
        return real(found)

    monkeypatch.setattr(tree_reader, "_time", resize)
    found, _ = await _kept(root)
    assert len(found[b"changing"][2]) == 100_000
    assert found[b"kept"][2] == b"kept"


async def test_a_tree_in_use_can_be_archived(root: Path) -> None:
    """While a thread makes, replaces and removes as fast as it can, each archive is a good one."""
    stop = threading.Event()
    ready = threading.Event()

    def churn() -> None:
        n = 0
        while not stop.is_set():
            n += 1
            path = root / f"f{n % 7}"
            if path.is_symlink() or path.is_file():
                path.unlink()
            elif n % 2:
                path.symlink_to("../secret")
            else:
                path.write_bytes(b"x" * (n % 5000))
            ready.set()

    thread = threading.Thread(target=churn)
    thread.start()
    try:
        await until(ready.is_set)
        for n in range(15):
            folder = root.parent / str(n)
            folder.mkdir()
            async with small_archives() as archives:
                await archives.pack(root, folder / "archive")
                (folder / "back").mkdir()
                await archives.unpack(folder / "archive", folder / "back")
            found = picture(folder / "back")
            assert found[b"kept"][2] == b"kept"
            assert not [entry for entry in found.values() if SECRET in entry[2]]
    finally:
        stop.set()
        thread.join(10)
