"""Blobs in S3, or wherever else fsspec reaches: one object for each key."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from fsspec.asyn import sync
from fsspec.core import url_to_fs

from warmline_service.store._faults import BlobMissing, StoreMisconfigured
from warmline_service.store._file_blobs import replacing

# Others write there too, so nothing is remembered; nobody else shares our connections.
_OPTIONS = {"use_listings_cache": False, "skip_instance_cache": True}
# One part of 50 MB in memory, and one request instead of two for what is small.
_S3_OPTIONS = {"max_concurrency": 1}
_S3 = frozenset({"s3", "s3a"})


class RemoteBlobs:
    """Below the URL's path; fsspec does the I/O in a thread of its own."""

    def __init__(self, url: str, options: Mapping[str, Any]) -> None:
        self._url = url
        self._options = options
        self._fs: Any = None
        self._root = ""

    def open(self) -> None:
        """Find what speaks the URL's protocol; connecting is left to the first call."""
        protocol = self._url.partition("://")[0]
        defaults = _OPTIONS | (_S3_OPTIONS if protocol in _S3 else {})
        try:
            self._fs, root = url_to_fs(self._url, **{**defaults, **self._options})
        except ImportError as error:
            hint = ": pip install 'warmline[s3]'" if protocol in _S3 else ""
            raise StoreMisconfigured(f"store.blob_url: {protocol} needs a package{hint}") from error
        except ValueError as error:
            raise StoreMisconfigured(f"store.blob_url: {protocol} is not usable") from error
        self._root = root.rstrip("/")

    def put(self, key: str, data: bytes | Path, timeout: float) -> None:
        """Stores make an object visible when all of it has arrived."""
        if isinstance(data, Path):
            self._call("put_file", str(data), self._at(key), timeout=timeout)
        else:
            self._call("pipe_file", self._at(key), data, timeout=timeout)

    def get(self, key: str, timeout: float) -> bytes:
        """Fetch the object."""
        with _missing(key):
            return bytes(self._call("cat_file", self._at(key), timeout=timeout))

    def get_to(self, key: str, path: Path, timeout: float) -> None:
        """Fetch the object into a file."""
        with replacing(path) as made, _missing(key):
            self._call("get_file", self._at(key), str(made), timeout=timeout)

    def delete(self, key: str, timeout: float) -> None:
        """Remove the object."""
        with contextlib.suppress(BlobMissing), _missing(key):
            self._call("rm_file", self._at(key), timeout=timeout)

    def delete_prefix(self, prefix: str, timeout: float) -> None:
        """Remove every object; OSError if one stayed, which S3's own answer does not tell."""
        found = self._find(prefix, timeout)
        if found:
            self._call("rm", found, timeout=timeout)
            if self._find(prefix, timeout):
                raise OSError(f"objects below {prefix} could not be removed")

    def exists(self, key: str, timeout: float) -> bool:
        """Ask for what is known of the object."""
        with contextlib.suppress(BlobMissing), _missing(key):
            return bool(self._call("info", self._at(key), timeout=timeout)["type"] == "file")
        return False

    def close(self) -> None:
        """Close the connections, as far as there are any."""
        session = getattr(self._fs, "_s3creator", None)
        if session is not None:
            self._fs.close_session(self._fs.loop, session)

    def _find(self, prefix: str, timeout: float) -> list[str]:
        with contextlib.suppress(BlobMissing), _missing(prefix):
            return list(self._call("find", self._at(prefix), timeout=timeout))
        return []

    def _at(self, key: str) -> str:
        return f"{self._root}/{key}"

    def _call(self, name: str, *arguments: object, timeout: float) -> Any:
        if self._fs.async_impl:
            # The deadline ends the call itself, not only the wait for it.
            method = getattr(self._fs, f"_{name}")
            return sync(self._fs.loop, method, *arguments, timeout=timeout)
        return getattr(self._fs, name)(*arguments)


@contextlib.contextmanager
def _missing(key: str) -> Iterator[None]:
    """An object that is not there is BlobMissing; a bucket that is not there is a fault."""
    try:
        yield
    except FileNotFoundError as error:
        answer = getattr(error.__cause__, "response", {})
        if answer.get("Error", {}).get("Code") == "NoSuchBucket":
            raise
        raise BlobMissing(key) from None
