"""Blobs: the same promises in files, in S3 and wherever else fsspec reaches."""

import asyncio
import uuid
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from warmline_service.store import BlobMissing, Blobs, StoreMisconfigured, blob_key, blob_prefix

KINDS = ["files", "file_url", "s3", "memory"]
SESSION = str(uuid.UUID(int=1))
OTHER = str(uuid.UUID(int=2))
KEY = blob_key("acme", SESSION, "work.tar.zst")


def _make(kind: str, request: pytest.FixtureRequest, path: Path) -> Blobs:
    if kind == "files":
        return Blobs("", path / "blobs")
    if kind == "file_url":
        return Blobs(f"file://{path}/with%20space", path / "unused")
    if kind == "s3":
        bucket = request.getfixturevalue("s3")
        return Blobs(bucket.url, path / "unused", options=bucket.options)
    return Blobs(f"memory://{uuid.uuid4()}", path / "unused")


@pytest.fixture(params=KINDS)
async def blobs(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Blobs]:
    """A store of each kind."""
    store = _make(request.param, request, tmp_path)
    await store.start()
    yield store
    await store.aclose()


@pytest.mark.parametrize("data", [b"", b"content", b"x" * 300_000])
async def test_what_was_put_is_what_one_gets(blobs: Blobs, data: bytes, tmp_path: Path) -> None:
    """Bytes or a file, into memory or into a file."""
    source, target = tmp_path / "source", tmp_path / "target"
    source.write_bytes(data)
    for given in (data, source):
        await blobs.put(KEY, given)
        assert await blobs.get(KEY) == data
        await blobs.get_to(KEY, target)
        assert target.read_bytes() == data
        assert target.stat().st_mode & 0o777 == 0o600
        await blobs.delete(KEY)


async def test_the_last_put_counts(blobs: Blobs) -> None:
    """A key has one content."""
    await blobs.put(KEY, b"first, and longer")
    await blobs.put(KEY, b"second")
    assert await blobs.get(KEY) == b"second"


async def test_a_missing_blob_has_an_error_of_its_own(blobs: Blobs, tmp_path: Path) -> None:
    """It names the key, and a file that was to be filled is not made."""
    target = tmp_path / "target"
    assert not await blobs.exists(KEY)
    with pytest.raises(BlobMissing) as caught:
        await blobs.get(KEY)
    assert caught.value.key == KEY
    with pytest.raises(BlobMissing):
        await blobs.get_to(KEY, target)
    assert not list(tmp_path.glob("*target*"))


async def test_delete_may_be_said_twice(blobs: Blobs) -> None:
    """What is not there is no error to remove."""
    await blobs.put(KEY, b"content")
    assert await blobs.exists(KEY)
    await blobs.delete(KEY)
    await blobs.delete(KEY)
    assert not await blobs.exists(KEY)


async def test_a_prefix_goes_with_all_below_it_and_nothing_else(blobs: Blobs) -> None:
    """First a session, then the tenant; another tenant with a longer name keeps its own."""
    kept = blob_key("acme2", SESSION, "x")
    others = [blob_key("acme", OTHER, "x"), blob_key("acme", OTHER, "y")]
    for key in (KEY, kept, *others):
        await blobs.put(key, b"content")
    await blobs.delete_prefix(blob_prefix("acme", SESSION))
    assert [await blobs.exists(key) for key in (KEY, *others)] == [False, True, True]
    await blobs.delete_prefix(blob_prefix("acme"))
    await blobs.delete_prefix(blob_prefix("acme"))
    assert [await blobs.exists(key) for key in (*others, kept)] == [False, False, True]


async def test_many_at_once_do_not_disturb_each_other(blobs: Blobs) -> None:
    """While others write, read and remove."""
    keys = [blob_key("acme", str(uuid.UUID(int=n)), "x") for n in range(20)]

    async def live(key: str) -> None:
        for _ in range(3):
            await blobs.put(key, key.encode())
            assert await blobs.get(key) == key.encode()
            await blobs.delete_prefix(key.rpartition("/")[0] + "/")
            assert not await blobs.exists(key)

    await asyncio.gather(*(live(key) for key in keys))


@pytest.mark.parametrize("key", ["../../etc/passwd", "acme/x", ""])
async def test_only_built_keys_are_taken(blobs: Blobs, key: str) -> None:
    """Anything else is a mistake of ours, whatever the call."""
    for call in (blobs.get(key), blobs.put(key, b""), blobs.delete(key), blobs.exists(key)):
        with pytest.raises(ValueError, match="not the key"):
            await call
    with pytest.raises(ValueError, match="not the prefix"):
        await blobs.delete_prefix(key)


@pytest.mark.parametrize("url", ["blobs", "file://host/path", "file:blobs", "nonsense://x"])
async def test_a_url_that_leads_nowhere_is_found_at_the_start(url: str, tmp_path: Path) -> None:
    """Not at the first session's end."""
    with pytest.raises(StoreMisconfigured, match=r"store\.blob_url"):
        await Blobs(url, tmp_path).start()
