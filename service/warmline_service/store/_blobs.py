"""Content by key, in files or in S3: whole or not at all, and never waited for on the loop."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, ParamSpec, TypeVar
from urllib.parse import unquote, urlsplit

from warmline_service.store._backend import BlobBackend
from warmline_service.store._blob_key import check_key, check_prefix
from warmline_service.store._faults import BlobMissing, StoreMisconfigured, content_unavailable
from warmline_service.store._file_blobs import FileBlobs
from warmline_service.store._remote_blobs import RemoteBlobs

P = ParamSpec("P")
T = TypeVar("T")

_FILE = frozenset({"file", "local"})
_THREADS = 8
_TIMEOUT = 60.0
# At the least, for the first use: a client of S3 loads for a second and more before it asks anything.
_OPEN_TIMEOUT = 60.0


class Blobs:
    """Blobs under the keys that `blob_key` makes.

    `url` is empty for files below `directory`, `file:///path` for files elsewhere, `s3://bucket/prefix`
    for S3, or any other URL that fsspec knows. S3's credentials come from where AWS's own tools look:
    the service's environment (`AWS_*`), its `~/.aws`, the machine's role. CLI processes inherit none of
    them: their environment is built from nothing and their HOME is the slot's.

    Every call ends within its `timeout`; one that is given up may still have taken effect. Whatever
    the disk or the network does to it is STORAGE_UNAVAILABLE, with the cause for the log.
    """

    def __init__(
        self,
        url: str,
        directory: Path,
        *,
        timeout: float = _TIMEOUT,
        options: Mapping[str, Any] | None = None,
    ) -> None:
        self._backend = _backend(url, directory, options or {})
        self._timeout = timeout
        # Its own threads: a disk that hangs must not take those that the rest of the service uses.
        self._threads = ThreadPoolExecutor(_THREADS, thread_name_prefix="blobs")

    async def start(self) -> None:
        """Make ready for use; StoreMisconfigured where the URL leads nowhere."""
        await self._run(max(self._timeout, _OPEN_TIMEOUT), self._backend.open)

    async def aclose(self) -> None:
        """Close connections; calls that run are not waited for."""
        await self._run(self._timeout, self._backend.close)
        self._threads.shutdown(wait=False, cancel_futures=True)

    async def put(self, key: str, data: bytes | Path, *, timeout: float | None = None) -> None:
        """Keep these bytes, or the content of this file, in place of what was there."""
        check_key(key)
        limit = timeout or self._timeout
        await self._run(limit, self._backend.put, key, data, limit)

    async def get(self, key: str, *, timeout: float | None = None) -> bytes:
        """All of a blob; BlobMissing where there is none."""
        check_key(key)
        limit = timeout or self._timeout
        return await self._run(limit, self._backend.get, key, limit)

    async def get_to(self, key: str, path: Path, *, timeout: float | None = None) -> None:
        """All of a blob into a file that only we can read; BlobMissing where there is none."""
        check_key(key)
        limit = timeout or self._timeout
        await self._run(limit, self._backend.get_to, key, path, limit)

    async def delete(self, key: str, *, timeout: float | None = None) -> None:
        """Remove a blob; one that is not there is no error."""
        check_key(key)
        limit = timeout or self._timeout
        await self._run(limit, self._backend.delete, key, limit)

    async def delete_prefix(self, prefix: str, *, timeout: float | None = None) -> None:
        """Remove all blobs of a session or a tenant (`blob_prefix`)."""
        check_prefix(prefix)
        limit = timeout or self._timeout
        await self._run(limit, self._backend.delete_prefix, prefix, limit)

    async def exists(self, key: str, *, timeout: float | None = None) -> bool:
        """Whether there is a blob under this key."""
        check_key(key)
        limit = timeout or self._timeout
        return await self._run(limit, self._backend.exists, key, limit)

    async def _run(
        self, limit: float, work: Callable[P, T], *args: P.args, **kwargs: P.kwargs
    ) -> T:
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(limit):
                return await loop.run_in_executor(self._threads, lambda: work(*args, **kwargs))
        except (BlobMissing, StoreMisconfigured):
            raise
        # Whatever speaks a URL's protocol raises what its own library raises.
        except Exception as error:
            raise content_unavailable() from error


def _backend(url: str, directory: Path, options: Mapping[str, Any]) -> BlobBackend:
    if not url:
        return FileBlobs(directory)
    parts = urlsplit(url)
    if not parts.scheme:
        raise StoreMisconfigured(
            "store.blob_url: not a URL; for a directory write file:///its/path"
        )
    if parts.scheme in _FILE:
        if parts.netloc or not parts.path.startswith("/"):
            raise StoreMisconfigured("store.blob_url: write file:///its/path, with three slashes")
        return FileBlobs(Path(unquote(parts.path)))
    return RemoteBlobs(url, options)
