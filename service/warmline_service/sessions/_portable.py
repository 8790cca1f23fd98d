"""A session as it can be taken elsewhere, and one that came from elsewhere."""

from __future__ import annotations

import asyncio
import zlib
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import msgspec

from warmline_service.config import StoreSettings
from warmline_service.errors import field_invalid
from warmline_service.quota import Quota
from warmline_service.sessions._config import SessionConfig
from warmline_service.sessions._sessions import Sessions
from warmline_service.sessions._workspaces import Workspaces, content_missing
from warmline_service.store import (
    ArchiveRefused,
    ArchiveTooLarge,
    BlobMissing,
    Claim,
    PartRow,
    SessionRow,
    Store,
)
from warmline_service.worker import imported

CHUNK = 1024 * 1024


@dataclass(frozen=True)
class Export:
    """What an export holds: the transcript's lines, and a file with the workspace, if there is any."""

    row: SessionRow
    lines: Sequence[bytes]
    workspace: Path | None


class Portable:
    """Exports sessions and imports them."""

    def __init__(
        self,
        store: Store,
        sessions: Sessions,
        workspaces: Workspaces,
        quota: Quota,
        settings: StoreSettings,
    ) -> None:
        self._store = store
        self._sessions = sessions
        self._workspaces = workspaces
        self._quota = quota
        self._spill = settings.spill_bytes

    @asynccontextmanager
    async def exported(
        self, row: SessionRow, live: Path | None, *, workspace: bool, transcript: bool = True
    ) -> AsyncIterator[Export]:
        """A session's export while the context lasts; `live` is its directory, where a process has it.

        Raises STORAGE_UNAVAILABLE.
        """
        async with AsyncExitStack() as stack:
            try:
                lines: Sequence[bytes] = ()
                if transcript:
                    lines = await self._sessions.transcript(row.tenant, row.id)
                path: Path | None = None
                if workspace and live is not None:
                    path = await stack.enter_async_context(self._workspaces.packed(live))
                elif workspace and row.workspace_key:
                    fetched = self._workspaces.fetched(row.workspace_key)
                    path = await stack.enter_async_context(fetched)
            except BlobMissing as error:
                raise content_missing() from error
            yield Export(row, lines, path)

    async def begin(
        self, tenant: str, config: SessionConfig, lines: Sequence[bytes], claim: Claim | None
    ) -> str:
        """Store a new session that begins with these entries, as `imported` gives them; gives its id.

        Raises QUOTA_EXCEEDED, IDEMPOTENCY_CONFLICT, STORAGE_UNAVAILABLE.
        """
        row = self._sessions.new_row(tenant, config, "")
        part = await asyncio.to_thread(self._part, row.id, lines)
        return await self._sessions.add(row, claim, [part])

    async def import_(
        self,
        tenant: str,
        config: SessionConfig,
        title: str,
        transcript: bytes,
        workspace: Path | None,
    ) -> str:
        """Store a new session with what somebody brings; gives its id.

        Raises FIELD_INVALID for a transcript or an archive that is not acceptable, QUOTA_EXCEEDED,
        STORAGE_UNAVAILABLE.
        """
        if workspace is not None and config.workspace:
            raise field_invalid(
                "workspace", "a session in a named workspace has no files of its own"
            )
        brought = [line for line in transcript.split(b"\n") if line.strip()]
        # What was said before counts as no turn of this session.
        lines = await asyncio.to_thread(imported, brought, "transcript") if brought else []
        row = self._sessions.new_row(tenant, config, title)
        parts = [self._part(row.id, lines)] if lines else []
        await self._quota.keep(tenant, await _size(parts, workspace))
        limit = await self._quota.sessions(tenant)
        if workspace is not None:
            key = await self._keep(tenant, row.id, workspace)
            row = msgspec.structs.replace(row, workspace_key=key)
        return await self._store.create(row, None, limit, parts)

    async def _keep(self, tenant: str, session_id: str, archive: Path) -> str:
        try:
            await self._workspaces.check(archive)
        except (ArchiveRefused, ArchiveTooLarge) as error:
            raise field_invalid("workspace", str(error)) from error
        return await self._workspaces.keep(tenant, session_id, archive)

    def _part(self, session_id: str, lines: Sequence[bytes]) -> PartRow:
        data = zlib.compress(b"".join(line + b"\n" for line in lines))
        return PartRow(session_id, 0, "", len(data), len(data) > self._spill, data)


async def _size(parts: Sequence[PartRow], archive: Path | None) -> int:
    size = sum(part.size for part in parts)
    return size if archive is None else size + (await asyncio.to_thread(archive.stat)).st_size
