"""Blobs when the disk or the network fails: a typed error in time, nothing half, nothing told."""

import asyncio
import errno
import os
import shutil
import socket
import threading
import time
import uuid
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from running import until
from s3 import Bucket
from warmline_service.errors import Reason, WarmlineError
from warmline_service.store import Blobs, blob_key, blob_prefix

SESSION = str(uuid.UUID(int=1))
KEY = blob_key("acme", SESSION, "x")


@pytest.fixture
async def blobs(tmp_path: Path) -> AsyncIterator[Blobs]:
    """A store of files in `tmp_path`/blobs."""
    store = Blobs("", tmp_path / "blobs")
    await store.start()
    yield store
    await store.aclose()


def _assert_says_nothing(error: WarmlineError, *secrets: str) -> None:
    assert error.reason is Reason.STORAGE_UNAVAILABLE
    assert error.retry_after
    assert error.__cause__ is not None
    told = f"{error} {error.metadata}"
    assert not [secret for secret in secrets if secret in told]


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EIO, errno.EDQUOT, errno.EROFS])
async def test_a_disk_that_fails_leaves_what_was_there(
    blobs: Blobs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    """The caller hears that storage is unavailable, not where it is; the old content stays."""
    await blobs.put(KEY, b"old")

    def fail(_: int) -> None:
        raise OSError(number, os.strerror(number), str(tmp_path))

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", fail)
        with pytest.raises(WarmlineError) as caught:
            await blobs.put(KEY, b"new")
    _assert_says_nothing(caught.value, str(tmp_path), "acme", SESSION)
    assert await blobs.get(KEY) == b"old"
    assert not list((tmp_path / "blobs" / ".aside").iterdir())


async def test_a_directory_that_is_gone_is_not_an_empty_store(blobs: Blobs, tmp_path: Path) -> None:
    """When its disk is not mounted nobody may conclude that there was never anything."""
    await blobs.put(KEY, b"content")
    shutil.rmtree(tmp_path / "blobs")
    for call in (blobs.get(KEY), blobs.exists(KEY), blobs.delete_prefix(blob_prefix("acme"))):
        with pytest.raises(WarmlineError) as caught:
            await call
        _assert_says_nothing(caught.value, str(tmp_path))


async def test_only_we_can_read_files(blobs: Blobs, tmp_path: Path) -> None:
    """0600 in 0700, whatever the umask."""
    before = os.umask(0)
    try:
        await blobs.put(KEY, b"content")
    finally:
        os.umask(before)
    tree = [tmp_path / "blobs", *(tmp_path / "blobs").rglob("*")]
    modes = {path.is_dir(): path.stat().st_mode & 0o777 for path in tree}
    assert modes == {True: 0o700, False: 0o600}


async def test_a_file_is_synced_before_it_has_its_name_and_its_directories_after(
    blobs: Blobs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In this order a power cut leaves the old content or the new."""
    root = tmp_path / "blobs"
    where = root / KEY
    synced: list[tuple[str, bool]] = []

    def record(descriptor: int) -> None:
        path = Path(f"/proc/self/fd/{descriptor}").readlink().relative_to(root)
        synced.append((".aside" if path.parent.name == ".aside" else str(path), where.exists()))

    monkeypatch.setattr(os, "fsync", record)
    await blobs.put(KEY, b"content")
    folders = [(".", False), ("acme", False), (f"acme/{SESSION}", True)]
    assert synced == [(".aside", False), *folders]


async def test_a_start_clears_up_after_a_killed_service(blobs: Blobs, tmp_path: Path) -> None:
    """What was half written or half removed is gone; what was kept is there."""
    await blobs.put(KEY, b"content")
    aside = tmp_path / "blobs" / ".aside"
    (aside / "half").write_bytes(b"half")
    (aside / "doomed" / SESSION).mkdir(parents=True)
    await blobs.start()
    assert not list(aside.iterdir())
    assert await blobs.get(KEY) == b"content"


async def test_a_reader_sees_one_content_or_the_other(blobs: Blobs) -> None:
    """Never part of one, while another writes."""
    contents = [bytes([n]) * 200_000 for n in range(2)]
    await blobs.put(KEY, contents[0])

    async def write() -> None:
        for n in range(60):
            await blobs.put(KEY, contents[n % 2])

    writer = asyncio.create_task(write())
    while not writer.done():
        assert await blobs.get(KEY) in contents
    await writer


async def test_a_link_in_place_of_a_file_is_not_followed(blobs: Blobs, tmp_path: Path) -> None:
    """Neither in the store nor as the file to be kept."""
    (tmp_path / "secret").write_text("secret")
    (tmp_path / "link").symlink_to(tmp_path / "secret")
    with pytest.raises(WarmlineError):
        await blobs.put(KEY, tmp_path / "link")
    await blobs.put(KEY, b"content")
    (tmp_path / "blobs" / KEY).unlink()
    (tmp_path / "blobs" / KEY).symlink_to(tmp_path / "secret")
    with pytest.raises(WarmlineError):
        await blobs.get(KEY)


def _options(port: int) -> dict[str, Any]:
    return {
        "endpoint_url": f"http://127.0.0.1:{port}",
        "key": "AKIAKEY",
        "secret": "the-secret",
        "client_kwargs": {"region_name": "us-east-1"},
    }


@pytest.mark.parametrize("listening", [False, True], ids=["refused", "silent"])
async def test_an_s3_that_does_not_answer_is_unavailable_in_time(
    tmp_path: Path, listening: bool
) -> None:
    """Whether it refuses or is silent, and without a word about keys and hosts."""
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        if listening:
            server.listen()
        port = server.getsockname()[1]
        store = Blobs("s3://bucket/prefix", tmp_path, timeout=1.0, options=_options(port))
        # Loading S3's description of itself has no part in what is measured.
        await store.start()
        target = tmp_path / "target"
        for call in (
            store.get(KEY),
            store.put(KEY, b""),
            store.exists(KEY),
            store.get_to(KEY, target),
        ):
            started = time.monotonic()
            with pytest.raises(WarmlineError) as caught:
                await call
            assert time.monotonic() - started < 2.0
            _assert_says_nothing(caught.value, "the-secret", "AKIAKEY", str(port), "bucket")
        await store.aclose()


async def test_a_silent_s3_does_not_keep_threads(tmp_path: Path) -> None:
    """The deadline ends the request too, so that the next one finds a thread."""
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen()
        options = _options(server.getsockname()[1])
        store = Blobs("s3://bucket/prefix", tmp_path, timeout=0.5, options=options)
        await store.start()
        with pytest.raises(WarmlineError):
            await store.get(KEY)
        await store.aclose()
        await until(
            lambda: not any(each.name.startswith("blobs") for each in threading.enumerate())
        )


async def test_a_bucket_that_is_not_there_is_not_an_empty_store(s3: Bucket, tmp_path: Path) -> None:
    """A mistyped name must not look as if everything had been lost."""
    store = Blobs("s3://no-such-bucket/prefix", tmp_path, options=s3.options)
    await store.start()
    calls = [store.get(KEY), store.exists(KEY), store.put(KEY, b""), store.delete(KEY)]
    for call in [*calls, store.delete_prefix(blob_prefix("acme"))]:
        with pytest.raises(WarmlineError) as caught:
            await call
        _assert_says_nothing(caught.value, "no-such-bucket")
    await store.aclose()


async def test_objects_that_stay_are_not_reported_as_removed(
    s3: Bucket, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """S3 may refuse to remove one of many and still answer well."""
    s3fs = pytest.importorskip("s3fs")

    async def refuse(*_: object, **__: object) -> list[str]:
        return []

    store = Blobs(s3.url, tmp_path, options=s3.options)
    await store.start()
    await store.put(KEY, b"content")
    monkeypatch.setattr(s3fs.S3FileSystem, "_bulk_delete", refuse)
    with pytest.raises(WarmlineError):
        await store.delete_prefix(blob_prefix("acme"))
    await store.aclose()


async def test_what_is_larger_than_a_part_travels_in_parts(s3: Bucket, tmp_path: Path) -> None:
    """A workspace's archive does not have to fit one request."""
    data = os.urandom(1024) * 110 * 1024
    source, target = tmp_path / "source", tmp_path / "target"
    source.write_bytes(data)
    store = Blobs(s3.url, tmp_path, options=s3.options)
    await store.start()
    await store.put(KEY, source)
    await store.get_to(KEY, target)
    assert target.read_bytes() == data
    await store.aclose()
