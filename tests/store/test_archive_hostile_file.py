"""Archives that callers bring and that mean harm: one test for each thing that one can hold."""

import tarfile
from pathlib import Path

import pytest
from store.archives import LIMITS, compressed, file, other, small_archives, tar
from warmline_service.store import ArchiveRefused, ArchiveTooLarge

MIB = 1024 * 1024
Member = tuple[tarfile.TarInfo, bytes]


async def _fails(tmp_path: Path, data: bytes) -> Exception:
    """How it fails; nothing of it may be left, inside the directory or beside it."""
    (tmp_path / "archive").write_bytes(data)
    (tmp_path / "back").mkdir()
    async with small_archives() as archives:
        with pytest.raises((ArchiveRefused, ArchiveTooLarge)) as caught:
            await archives.unpack(tmp_path / "archive", tmp_path / "back")
    assert {path.name for path in tmp_path.rglob("*")} == {"archive", "back"}
    assert (tmp_path / "back").is_dir()
    return caught.value


async def _refused(tmp_path: Path, *members: Member, because: str) -> None:
    error = await _fails(tmp_path, compressed(tar(file("first"), *members)))
    assert isinstance(error, ArchiveRefused)
    assert because in str(error)


async def _too_large(tmp_path: Path, data: bytes, limit: str) -> None:
    error = await _fails(tmp_path, data)
    assert isinstance(error, ArchiveTooLarge)
    assert error.limit == limit


@pytest.mark.parametrize("name", ["../out", "a/../../out", "..", "a/.."])
async def test_a_name_that_leads_upwards_is_refused(tmp_path: Path, name: str) -> None:
    """Nothing is written above the directory."""
    await _refused(tmp_path, file(name), because="leads upwards")


@pytest.mark.parametrize("name", ["/tmp/out", "//out", "/"])
async def test_an_absolute_name_is_refused(tmp_path: Path, name: str) -> None:
    """It is not made relative either."""
    await _refused(tmp_path, file(name), because="no relative path")


@pytest.mark.parametrize("target", ["/etc/passwd", "../out", "../../out", "a/../../out", ""])
async def test_a_link_that_could_lead_out_is_refused(tmp_path: Path, target: str) -> None:
    """Even if nothing is written through it."""
    await _refused(tmp_path, other("link", tarfile.SYMTYPE, target), because="lead out")


async def test_nothing_is_written_through_a_link(tmp_path: Path) -> None:
    """First a link to a directory, then a file below the link."""
    link = other("link", tarfile.SYMTYPE, "sub")
    members = (other("sub", tarfile.DIRTYPE), link, file("link/file"))
    await _refused(tmp_path, *members, because="collides")


async def test_two_harmless_links_cannot_be_combined_to_a_harmful_one(tmp_path: Path) -> None:
    """`here/..` is the directory above, although by its letters it is not."""
    here = other("here", tarfile.SYMTYPE, ".")
    await _refused(tmp_path, here, other("out", tarfile.SYMTYPE, "here/.."), because="lead out")


@pytest.mark.parametrize("target", ["first", "../out", "/etc/passwd"])
async def test_a_hard_link_is_refused(tmp_path: Path, target: str) -> None:
    """Wherever it points."""
    await _refused(tmp_path, other("link", tarfile.LNKTYPE, target), because="neither a file")


@pytest.mark.parametrize(
    "type_",
    [tarfile.CHRTYPE, tarfile.BLKTYPE, tarfile.FIFOTYPE, tarfile.GNUTYPE_SPARSE, b"Z"],
    ids=["character device", "block device", "FIFO", "sparse", "unknown"],
)
async def test_what_is_no_file_is_refused(tmp_path: Path, type_: bytes) -> None:
    """Devices above all."""
    await _refused(tmp_path, other("thing", type_), because="neither a file")


@pytest.mark.parametrize(
    "second",
    [
        file("first", b"other"),
        file("./first"),
        other("first", tarfile.DIRTYPE),
        other("first", tarfile.SYMTYPE, "x"),
    ],
    ids=["file", "another spelling", "directory", "link"],
)
async def test_the_same_name_twice_is_refused(tmp_path: Path, second: Member) -> None:
    """Who checks one and uses the other is deceived."""
    await _refused(tmp_path, second, because="twice")


async def test_a_file_is_no_directory(tmp_path: Path) -> None:
    """Nothing can be below it."""
    await _refused(tmp_path, file("first/inner"), because="collides")


async def test_no_privilege_is_restored(tmp_path: Path) -> None:
    """Neither setuid nor an owner: what is restored is ours, and others cannot write to it."""
    (tmp_path / "archive").write_bytes(
        compressed(tar(file("a", mode=0o7777, uid=4711, gid=4711, uname="daemon")))
    )
    (tmp_path / "back").mkdir()
    async with small_archives() as archives:
        await archives.unpack(tmp_path / "archive", tmp_path / "back")
    found = (tmp_path / "back" / "a").stat()
    assert (found.st_mode & 0o7777, found.st_uid) == (0o755, (tmp_path / "back").stat().st_uid)


async def test_a_bomb_of_one_file_does_not_go_off(tmp_path: Path) -> None:
    """A header that promises too much is not even begun with."""
    await _too_large(tmp_path, compressed(tar(file("a", bytes(MIB)))), "file_bytes")


async def test_a_bomb_of_many_files_does_not_go_off(tmp_path: Path) -> None:
    """Each is within bounds, all are not."""
    files = [file(str(n), bytes(LIMITS.file_bytes)) for n in range(3)]
    await _too_large(tmp_path, compressed(tar(*files)), "total_bytes")


async def test_a_bomb_of_nothing_does_not_go_off(tmp_path: Path) -> None:
    """Many empty members, directories that are only implied, and headers without members."""
    empty = [file(str(n), b"") for n in range(LIMITS.members + 1)]
    await _too_large(tmp_path, compressed(tar(*empty)), "members")


async def test_implied_directories_count(tmp_path: Path) -> None:
    """One member can ask for as many as its name has parts."""
    files = [file(f"{n}/b/c/d/e/f", b"") for n in range(LIMITS.members // 4)]
    await _too_large(tmp_path, compressed(tar(*files)), "members")


async def test_headers_without_members_come_to_an_end(tmp_path: Path) -> None:
    """An archive of nothing but comments is bounded like any other."""
    info = other("comment", tarfile.XGLTYPE)[0]
    block = info.tobuf(tarfile.GNU_FORMAT)
    await _too_large(tmp_path, compressed(block * 3000), "total_bytes")


async def test_depth_is_a_bound(tmp_path: Path) -> None:
    """However short the names."""
    await _too_large(tmp_path, compressed(tar(file("d/" * LIMITS.depth + "f"))), "depth")


@pytest.mark.parametrize("type_", [tarfile.GNUTYPE_LONGNAME, tarfile.XHDTYPE, tarfile.XGLTYPE])
async def test_a_huge_header_is_refused(tmp_path: Path, type_: bytes) -> None:
    """It is not read into memory, however well it compresses."""
    info, data = file("huge", bytes(8 * MIB))
    info.type = type_
    await _refused(tmp_path, (info, data), because="header that is too large")


@pytest.mark.parametrize("size", [-1, -(2**40)])
async def test_a_size_below_zero_is_refused(tmp_path: Path, size: int) -> None:
    """Readers that believed it have gone backwards for ever."""
    info = file("negative")[0]
    info.size = size
    error = await _fails(tmp_path, compressed(info.tobuf(tarfile.GNU_FORMAT)))
    assert "below zero" in str(error)


@pytest.mark.parametrize(
    "record",
    [
        b"30 path=a\n",
        b"path=a\n",
        b"-9 path=a\n",
        b"99999999999999999999 path=a\n",
        b"15 size=banana\n",
        b"12 size=nan\n",
        b"13 mtime=inf\n",
        b"25 GNU.sparse.major=1.0\n\n",
        b"10 path=/x\n",
        b"12 path=../x\n",
        b"11 path=a\0b\n",
    ],
)
async def test_a_bad_pax_record_is_refused(tmp_path: Path, record: bytes) -> None:
    """Lengths that lie, numbers that are none, sparse maps, and names with the usual tricks."""
    info, data = file("pax", record)
    info.type = tarfile.XHDTYPE
    error = await _fails(tmp_path, compressed(tar((info, data), file("a"))))
    assert isinstance(error, ArchiveRefused)


async def test_a_name_that_no_disk_takes_is_refused(tmp_path: Path) -> None:
    """As the archive's fault, not the disk's."""
    await _refused(tmp_path, file("n" * 256), because="too long")


async def test_a_target_that_no_disk_takes_is_refused(tmp_path: Path) -> None:
    """The same for what a link says."""
    link = other("link", tarfile.SYMTYPE, "t/" * 3000)
    await _refused(tmp_path, link, because="cannot be made")


async def test_a_name_of_many_parts_is_a_bound(tmp_path: Path) -> None:
    """Each part is a name, all of them are none."""
    await _too_large(tmp_path, compressed(tar(file("./" * 3000 + "a"))), "path_bytes")


async def test_a_frame_that_wants_much_memory_is_refused(tmp_path: Path) -> None:
    """The window is the sender's choice, and our memory."""
    data = tar(file("a")) + bytes(100 * MIB)
    error = await _fails(tmp_path, compressed(data, window_log=27, enable_ldm=1))
    assert "damaged" in str(error)


@pytest.mark.parametrize("keep", [0, 3, 20, 100])
async def test_a_cut_archive_is_refused(tmp_path: Path, keep: int) -> None:
    """Wherever it was cut."""
    data = compressed(tar(file("a", bytes(range(256)) * 100)))
    assert isinstance(await _fails(tmp_path, data[:keep]), ArchiveRefused)


async def test_something_after_the_end_is_refused(tmp_path: Path) -> None:
    """Other tools might read on where we stop."""
    data = tar(file("a")) + tar(file("b"))
    assert "after its end" in str(await _fails(tmp_path, compressed(data)))


@pytest.mark.parametrize("data", [b"", b"PK\3\4 a zip", tar(file("a")), b"\x1f\x8b a gzip"])
async def test_what_is_no_archive_of_ours_is_refused(tmp_path: Path, data: bytes) -> None:
    """With a sentence for people."""
    assert isinstance(await _fails(tmp_path, data), ArchiveRefused)
