"""Archives of workspaces that mean no harm: what comes back is what went in."""

import asyncio
import os
import tempfile
from pathlib import Path

import pytest
import zstandard
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from running import until
from store.archives import Picture, compressed, file, other, picture, small_archives, tar
from warmline_service.store import ArchiveLimits, Archives

_NAMES = st.binary(min_size=1, max_size=20).filter(
    lambda name: name not in {b".", b".."} and b"/" not in name and b"\0" not in name
)
_FILES = st.tuples(st.binary(max_size=2000), st.sampled_from([0o600, 0o644, 0o755, 0o700]))
_TREES = st.recursive(
    st.dictionaries(_NAMES, _FILES, max_size=4),
    lambda inner: st.dictionaries(_NAMES, st.one_of(_FILES, inner), max_size=4),
    max_leaves=12,
)


def _plant(root: bytes, tree: dict[bytes, object]) -> None:
    for name, value in tree.items():
        path = root + b"/" + name
        if isinstance(value, tuple):
            descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL)
            os.write(descriptor, value[0])
            os.fchmod(descriptor, value[1])
            os.utime(descriptor, (1, 1_700_000_000 + len(value[0])))
            os.close(descriptor)
        else:
            assert isinstance(value, dict)
            os.mkdir(path, 0o755)  # noqa: PTH102  # names are bytes
            _plant(path, value)


async def _there_and_back(root: Path) -> tuple[Picture, bytes | None]:
    """What an archive of `root` makes of an empty directory."""
    back = root.parent / "back"
    back.mkdir()
    async with small_archives() as archives:
        stats = await archives.pack(root, root.parent / "archive")
        if stats is None:
            return {}, None
        assert await archives.unpack(root.parent / "archive", back)
    return picture(back), (root.parent / "archive").read_bytes()


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(tree=_TREES)
def test_a_tree_comes_back_as_it_was(tree: dict[bytes, object]) -> None:
    """Names of any bytes, contents, exec bits; and what came back makes the same archive."""
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder) / "root"
        root.mkdir()
        _plant(os.fsencode(root), tree)
        found, archive = asyncio.run(_there_and_back(root))
        assert found == picture(root)
        assert (archive is None) == (not tree)
        if archive:
            again = Path(folder) / "again"
            again.mkdir()
            (Path(folder) / "back").rename(again / "root")
            assert asyncio.run(_there_and_back(again / "root"))[1] == archive


async def test_an_empty_directory_makes_no_archive(tmp_path: Path) -> None:
    """None, and no file."""
    (tmp_path / "root").mkdir()
    assert await _there_and_back(tmp_path / "root") == ({}, None)
    assert not (tmp_path / "archive").exists()


async def test_links_and_times_come_back(tmp_path: Path) -> None:
    """Symlinks that stay inside, dangling ones too; whole seconds of files and directories."""
    root = tmp_path / "root"
    (root / "bin").mkdir(parents=True)
    (root / "bin" / "tool").write_text("x")
    (root / "link").symlink_to("bin/tool")
    (root / "bin" / "up").symlink_to("../missing")
    for path in (root / "bin" / "tool", root / "bin"):
        os.utime(path, (1, 1_500_000_000))
    found, _ = await _there_and_back(root)
    assert found == picture(root)
    back = tmp_path / "back" / "bin"
    assert {back.stat().st_mtime, (back / "tool").stat().st_mtime} == {1_500_000_000}


async def test_long_names_come_back(tmp_path: Path) -> None:
    """Beyond the 100 bytes of an old header, in names and in links."""
    root = tmp_path / "root"
    deep = root.joinpath(*["d" * 200] * 5)
    deep.mkdir(parents=True)
    (deep / ("f" * 255)).write_text("x")
    (root / "link").symlink_to(os.path.relpath(deep, root))
    found, _ = await _there_and_back(root)
    assert found == picture(root)


async def test_the_archive_is_one_that_other_tools_read(tmp_path: Path) -> None:
    """It is a tar in a zstd frame, and nothing of our own."""
    root = tmp_path / "root"
    root.mkdir()
    (root / "a\nb").write_text("x")
    await _there_and_back(root)
    archive = (tmp_path / "archive").read_bytes()
    plain = zstandard.ZstdDecompressor().decompressobj().decompress(archive)
    listed = await _run_tar("--list", "--quoting-style=literal", given=plain)
    assert listed == b"a\nb\n"


async def _run_tar(*arguments: str, given: bytes = b"") -> bytes:
    pipe = asyncio.subprocess.PIPE
    process = await asyncio.create_subprocess_exec("tar", *arguments, stdin=pipe, stdout=pipe)
    async with asyncio.timeout(60):
        output, _ = await process.communicate(given)
    assert process.returncode == 0
    return output


@pytest.mark.parametrize("style", ["--format=gnu", "--format=pax", "--format=ustar", "--format=v7"])
async def test_archives_of_gnu_tar_are_restored(tmp_path: Path, style: str) -> None:
    """In each of its formats, with the `./` that it puts first."""
    root, back = tmp_path / "root", tmp_path / "back"
    (root / "sub").mkdir(parents=True, mode=0o755)
    back.mkdir()
    (root / "sub" / "file").write_bytes(b"x" * 3000)
    (root / "sub" / "file").chmod(0o755)
    (root / "link").symlink_to("sub/file")
    (root / "sub").chmod(0o755)
    made = await _run_tar(style, "-C", str(root), "-cf", "-", ".")
    (tmp_path / "archive").write_bytes(compressed(made))
    async with small_archives() as archives:
        await archives.unpack(tmp_path / "archive", back)
    assert picture(back) == picture(root)


async def test_directories_that_an_archive_leaves_out_are_made(tmp_path: Path) -> None:
    """Before their content, and their own entry may still follow."""
    data = tar(file("a/b/c"), other("a/b", b"5"), file("a/d"))
    (tmp_path / "archive").write_bytes(compressed(data))
    (tmp_path / "back").mkdir()
    async with small_archives() as archives:
        stats = await archives.unpack(tmp_path / "archive", tmp_path / "back")
    assert stats.members == 3
    assert set(picture(tmp_path / "back")) == {b"a", b"a/b", b"a/b/c", b"a/d"}


async def test_a_directory_with_something_in_it_is_not_filled(tmp_path: Path) -> None:
    """What is there would be mixed up with what comes, and stays."""
    (tmp_path / "archive").write_bytes(compressed(tar(file("a"))))
    (tmp_path / "back").mkdir()
    (tmp_path / "back" / "there").write_text("x")
    async with small_archives() as archives:
        with pytest.raises(ValueError, match="empty directory"):
            await archives.unpack(tmp_path / "archive", tmp_path / "back")
    assert set(picture(tmp_path / "back")) == {b"there"}


async def test_whoever_gives_up_leaves_nothing_behind(tmp_path: Path) -> None:
    """When a cancelled call has returned, its thread has stopped and removed what it made."""
    root = tmp_path / "root"
    root.mkdir()
    for n in range(20):
        (root / str(n)).write_bytes(os.urandom(5_000_000))
    archives = Archives(ArchiveLimits())
    task = asyncio.create_task(archives.pack(root, tmp_path / "archive"))
    await until((tmp_path / "archive").exists)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert not (tmp_path / "archive").exists()
    await archives.aclose()
