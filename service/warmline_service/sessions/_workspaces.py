"""The files of sessions while no process has them: one archive for each session."""

from __future__ import annotations

import asyncio
import secrets
import shutil
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import structlog

from warmline_service.errors import Reason, WarmlineError
from warmline_service.sandbox import Owner
from warmline_service.sessions._files import PlacedFile, write_files
from warmline_service.sessions._own_directory import own_directory, reach_directory
from warmline_service.sessions._place import place_files
from warmline_service.store import (
    ArchiveRefused,
    Archives,
    ArchiveTooLarge,
    BlobMissing,
    SessionRow,
    Store,
    archive_name,
    blob_key,
    blob_prefix,
    content_unavailable,
)
from warmline_service.worker import Stored, hand_over, stored_below

_log = structlog.get_logger(__name__)

_ALL = Stored(sys.maxsize, sys.maxsize)
# Saving is bounded by the worker; this is what whoever needs the files waits for it.
_SETTLE_TIMEOUT = 35.0


class Workspaces:
    """Saves and restores working directories; named ones are directories of the tenant's.

    `root` is where the latter are, and where archives are while they are made. `group`: that of all
    processes, where each has a user of its own.
    """

    def __init__(
        self, store: Store, archives: Archives, root: Path, group: int | None = None
    ) -> None:
        self._group = group
        self._store = store
        self._archives = archives
        self._root = root
        # By slot: done when what a process of this service wrote there has been saved.
        self._expected: dict[str, asyncio.Future[None]] = {}
        # By slot: under which key its files are kept already, though the session's row may not say so.
        self._unsure: dict[str, str] = {}

    def expect(self, slot_id: str) -> asyncio.Future[None]:
        """A session's files are in this slot until the future is done, which is for the caller to say."""
        saving: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._expected[slot_id] = saving
        saving.add_done_callback(lambda _: self._expected.pop(slot_id))
        return saving

    async def settled(self, slot_id: str) -> None:
        """Wait, within a bound, until what is in a slot of this service's was saved, whoever had it."""
        saving = self._expected.get(slot_id)
        if saving is not None:
            await asyncio.wait({saving}, timeout=_SETTLE_TIMEOUT)

    async def save(self, tenant: str, session_id: str, directory: Path, slot_id: str) -> None:
        """Keep what is in a slot's directory in place of what was kept before.

        What cannot be kept is logged, and what was kept before stays. Where the store is down, the
        directory is set aside and saved later. Raises STORAGE_UNAVAILABLE.
        """
        # First: what a link leads to is not set aside either.
        await self._check_place(directory)
        try:
            await self._save(tenant, session_id, directory, slot_id)
        except BaseException:
            await asyncio.to_thread(self._set_aside, directory, slot_id)
            raise

    async def save_late(self, row: SessionRow) -> None:
        """Save what was set aside of a session, if there is anything. Raises STORAGE_UNAVAILABLE."""
        aside = self._aside(row.slot_id)
        if bool(row.slot_id) and await asyncio.to_thread(_is_directory, aside):
            await self._check_place(aside)
            await self._save(row.tenant, row.id, aside, row.slot_id)
            await asyncio.to_thread(_remove, aside)

    async def forget(self, row: SessionRow) -> None:
        """Remove what was set aside of a session that is deleted."""
        if not row.slot_id:
            return
        self._unsure.pop(row.slot_id, None)
        try:
            await asyncio.to_thread(self._discard, row.slot_id)
        except WarmlineError as error:
            # A link in its way: what that leads to is not the session's.
            _log.error("files set aside not removed", session=row.id, error=str(error))

    async def _save(self, tenant: str, session_id: str, directory: Path, slot_id: str) -> None:
        key = self._unsure.pop(slot_id, None)
        if key is None:
            key = await self._pack(tenant, session_id, directory)
        if key is None:
            return
        try:
            before = await self._store.replace_workspace(session_id, slot_id, key)
        except BaseException:
            self._unsure[slot_id] = key
            raise
        try:
            await self._tidy(tenant, session_id, key, before)
        except WarmlineError as error:
            # The files are kept, and what is too much goes with the session.
            _log.warning("old workspace not removed", session=session_id, error=str(error))

    async def _tidy(self, tenant: str, session_id: str, key: str, before: str | None) -> None:
        """Remove the content that no row refers to any more."""
        if before is None and key:
            await self._store.blobs.delete(key)  # The session is gone, or has another process.
            if await self._is_gone(tenant, session_id):
                # Nothing of it may be left, not even its directory.
                await self._store.blobs.delete_prefix(blob_prefix(tenant, session_id))
        elif before:
            await self._store.blobs.delete(before)

    async def _pack(self, tenant: str, session_id: str, directory: Path) -> str | None:
        """Keep a directory's content; gives its key, empty where there is none. None: it cannot be."""
        async with self.scratch() as target:
            try:
                stats = await self._archives.pack(directory, target)
            except (ArchiveTooLarge, ArchiveRefused) as error:
                _log.error("workspace not kept", session=session_id, error=str(error))
                return None
            return await self.keep(tenant, session_id, target) if stats is not None else ""

    async def _is_gone(self, tenant: str, session_id: str) -> bool:
        try:
            await self._store.session(tenant, session_id)
        except WarmlineError as error:
            if error.reason is not Reason.SESSION_NOT_FOUND:
                raise
            return True
        return False

    def _aside(self, slot_id: str) -> Path:
        return self._root / "unsaved" / slot_id

    def _set_aside(self, directory: Path, slot_id: str) -> None:
        own_directory(self._root, "unsaved")
        directory.rename(self._aside(slot_id))

    def _discard(self, slot_id: str) -> None:
        own_directory(self._root, "unsaved")
        _remove(self._aside(slot_id))

    async def restore(self, key: str, directory: Path, owner: Owner | None = None) -> None:
        """Fill an empty directory with what was kept under a key, for its process.

        Raises STORAGE_UNAVAILABLE.
        """
        await self._check_place(directory)
        async with self.fetched(key) as archive:
            await self._archives.unpack(archive, directory)
        try:
            await asyncio.to_thread(hand_over, directory, owner)
        except OSError as error:
            raise content_unavailable() from error

    async def copy(self, tenant: str, key: str, session_id: str) -> str:
        """Keep the same for another session; gives its key. Raises STORAGE_UNAVAILABLE."""
        try:
            async with self.fetched(key) as archive:
                return await self.keep(tenant, session_id, archive)
        except BlobMissing as error:
            raise content_missing() from error

    async def keep(self, tenant: str, session_id: str, archive: Path) -> str:
        """Keep an archive for a session; gives its key. Raises STORAGE_UNAVAILABLE."""
        # A new name each time: until the session's row is changed, the old one counts.
        size = (await asyncio.to_thread(archive.stat)).st_size
        key = blob_key(tenant, session_id, archive_name(size))
        await self._store.blobs.put(key, archive)
        return key

    async def keep_files(self, tenant: str, session_id: str, files: Sequence[PlacedFile]) -> str:
        """Keep files for a session that begins; gives their key. Raises STORAGE_UNAVAILABLE."""
        async with self.scratch() as folder:
            try:
                await asyncio.to_thread(write_files, folder, files)
            except OSError as error:
                raise content_unavailable() from error
            async with self.packed(folder) as archive:
                assert archive is not None
                return await self.keep(tenant, session_id, archive)

    @asynccontextmanager
    async def unpacked(self, archive: Path) -> AsyncIterator[Path]:
        """A directory with what an archive holds, while the context lasts."""
        async with self.scratch() as folder:
            await asyncio.to_thread(folder.mkdir, 0o700)
            await self._archives.unpack(archive, folder)
            yield folder

    async def check(self, archive: Path) -> None:
        """Raise ArchiveRefused or ArchiveTooLarge for what cannot be restored."""
        async with self.unpacked(archive):
            pass

    @asynccontextmanager
    async def packed(self, directory: Path) -> AsyncIterator[Path | None]:
        """A directory's archive, while the context lasts; None where it is empty."""
        async with self.scratch() as target:
            try:
                stats = await self._archives.pack(directory, target)
            except (ArchiveTooLarge, ArchiveRefused) as error:
                raise WarmlineError(
                    Reason.QUOTA_EXCEEDED,
                    f"The workspace cannot be packed: {error}.",
                    metadata={"quota": "workspace"},
                ) from error
            yield target if stats is not None else None

    @asynccontextmanager
    async def fetched(self, key: str) -> AsyncIterator[Path]:
        """What was kept under a key, while the context lasts.

        Raises STORAGE_UNAVAILABLE, BlobMissing.
        """
        async with self.scratch() as path:
            await self._store.blobs.get_to(key, path)
            yield path

    def named(self, tenant: str, name: str) -> Path:
        """The directory of a tenant's workspace; both names were checked. Blocks while it is made.

        Raises STORAGE_UNAVAILABLE.
        """
        return own_directory(self._root, "tenants", tenant, "workspaces", name, group=self._group)

    async def place_files(self, tenant: str, name: str, files: Sequence[PlacedFile]) -> None:
        """Put files into a tenant's workspace. Raises FIELD_INVALID, STORAGE_UNAVAILABLE."""
        folder = await asyncio.to_thread(self.named, tenant, name)
        try:
            await asyncio.to_thread(
                place_files,
                folder,
                files,
                "config.workspace.files",
                shared=self._group is not None,
            )
        except OSError as error:
            raise content_unavailable() from error

    async def stored_bytes(self, tenant: str) -> int:
        """All that is kept of a tenant: of its sessions, and in its named workspaces on this machine.

        Raises STORAGE_UNAVAILABLE.
        """
        named = await asyncio.to_thread(self._named_bytes, tenant)
        return named + await self._store.stored_bytes(tenant)

    def _named_bytes(self, tenant: str) -> int:
        names = "tenants", tenant, "workspaces"
        if not self._root.joinpath(*names).is_dir():
            return 0
        return stored_below([own_directory(self._root, *names)], _ALL).bytes

    @asynccontextmanager
    async def scratch(self) -> AsyncIterator[Path]:
        """A place for a file or a directory, which is gone afterwards."""
        folder = await asyncio.to_thread(own_directory, self._root, "archives")
        path = folder / secrets.token_hex(8)
        try:
            yield path
        finally:
            await asyncio.to_thread(_remove, path)

    async def _check_place(self, directory: Path) -> None:
        """Raise STORAGE_UNAVAILABLE where a process has put a link in the way to a directory."""
        if directory.is_relative_to(self._root):
            names = directory.relative_to(self._root).parts
            await asyncio.to_thread(reach_directory, self._root, *names)


def _is_directory(path: Path) -> bool:
    return path.is_dir()


def content_missing() -> WarmlineError:
    """What a row refers to is not there: as a rule because it was replaced just now."""
    return WarmlineError(
        Reason.STORAGE_UNAVAILABLE,
        "A part of this session's content is not there.",
        retry_after=1.0,
    )


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)
