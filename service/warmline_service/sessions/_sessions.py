"""Sessions as they are stored: made, loaded under a lease, given up, copied, removed."""

from __future__ import annotations

import asyncio
import time
import uuid
import zlib
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace

import msgspec

from warmline_service.config import RetentionSettings
from warmline_service.errors import Reason, WarmlineError, field_invalid
from warmline_service.quota import Quota
from warmline_service.sessions._config import SessionConfig
from warmline_service.sessions._mcp import sealed
from warmline_service.sessions._session import Session, session_of
from warmline_service.sessions._workspaces import content_missing
from warmline_service.store import (
    BlobMissing,
    Claim,
    PartRow,
    SessionRow,
    Store,
    TurnRow,
    archive_size,
)
from warmline_service.vault import Vault

_config_of = msgspec.json.Decoder(SessionConfig)


class Sessions:
    """What there is of sessions in the store; a tenant's are seen by itself only."""

    def __init__(
        self, store: Store, quota: Quota, retention: RetentionSettings, vault: Vault
    ) -> None:
        self._store = store
        self._vault = vault
        self._quota = quota
        self._keys_ttl = retention.keys_hours * 3600
        self.on_created: Callable[[SessionRow], None] = lambda row: None

    async def create(
        self,
        tenant: str,
        config: SessionConfig,
        claim: Claim | None = None,
        *,
        title: str = "",
        keep_files: Callable[[str], Awaitable[str]] | None = None,
        size: int = 0,
    ) -> str:
        """Store a new session; gives its id, or that of the one that `claim`'s key has already.

        `keep_files` keeps the files that it begins with, `size` bytes, for its id, and gives their key.
        Raises QUOTA_EXCEEDED, IDEMPOTENCY_CONFLICT, STORAGE_UNAVAILABLE.
        """
        # First, because it may fail: nothing is kept before.
        limit = await self._room(tenant, claim, size)
        row = self.new_row(tenant, config, title)
        if keep_files is not None:
            key = await keep_files(row.id)
            row = msgspec.structs.replace(row, workspace_key=key)
        return await self._create(row, claim, limit)

    async def fork(
        self,
        tenant: str,
        source_id: str,
        turn_id: str,
        claim: Claim | None,
        *,
        config: SessionConfig | None = None,
        copy_workspace: Callable[[SessionRow, str], Awaitable[str]],
    ) -> str:
        """Store a session with another's conversation up to a turn, by default its last; gives its id.

        `config` is what it has in place of the original's; `copy_workspace` keeps the files of a session
        for the new id and gives their key. Raises SESSION_NOT_FOUND, TURN_NOT_FOUND,
        FIELD_INVALID for a turn that has not ended, STORAGE_UNAVAILABLE where a part of it is not
        there, and as `create` does.
        """
        store = self._store
        source = await store.session(tenant, source_id)
        last = (
            await store.turn(source_id, turn_id) if turn_id else await store.last_ended(source_id)
        )
        if last is None and turn_id:
            raise WarmlineError(Reason.TURN_NOT_FOUND, "The session has no such turn.")
        if last is not None and last.ended_at is None:
            raise field_invalid("turn_id", "has not ended")
        kept = {turn.id for turn in await store.turns(source_id, last.number)} if last else set()
        own = config if config is not None and config != SessionConfig() else config_of(source)
        row = self.new_row(tenant, own, source.title)
        # What has no turn was there before the first: in the fork, all that it begins with.
        parts = [
            msgspec.structs.replace(part, session_id=row.id, turn_id="")
            for part in await self._parts(tenant, source_id)
            if part.turn_id in kept or not part.turn_id
        ]
        size = sum(part.size for part in parts) + archive_size(source.workspace_key)
        limit = await self._room(tenant, claim, size)
        row = msgspec.structs.replace(
            row,
            forked_from=source_id,
            forked_at=last.id if last else "",
            # Last, because it puts something: nothing else may be missing after it.
            workspace_key=await copy_workspace(source, row.id),
        )
        return await self._create(row, claim, limit, parts)

    async def add(self, row: SessionRow, claim: Claim | None, parts: Sequence[PartRow]) -> str:
        """Store a session with what it begins with; as `create`."""
        limit = await self._room(row.tenant, claim, sum(part.size for part in parts))
        return await self._create(row, claim, limit, parts)

    async def _room(self, tenant: str, claim: Claim | None, size: int) -> int:
        """How many sessions a tenant may keep; raises QUOTA_EXCEEDED without room for `size` bytes."""
        try:
            await self._quota.keep(tenant, size)
        except WarmlineError:
            # A session that its key has already takes no more.
            if claim is None or await self._store.claimed(claim) is None:
                raise
        return await self._quota.sessions(tenant)

    async def _create(
        self, row: SessionRow, claim: Claim | None, limit: int, parts: Sequence[PartRow] = ()
    ) -> str:
        session_id = await self._store.create(row, claim, limit, parts)
        if session_id == row.id:
            self.on_created(row)
        return session_id

    async def load(self, tenant: str, session_id: str) -> tuple[Session, list[TurnRow]]:
        """Become a session's writer; also gives its turns that have no end yet.

        Raises SESSION_NOT_FOUND, also for another tenant's; SESSION_ELSEWHERE; STORAGE_UNAVAILABLE.
        """
        taken = await self._store.take(tenant, session_id)
        return session_of(taken, config_of(taken.row)), list(taken.unfinished)

    async def release(self, session: Session) -> None:
        """Let another service be its writer."""
        await self._store.release(session.id, session.token)

    async def reconfigure(self, session: Session) -> None:
        """Store how a session is set up now. Raises SESSION_ELSEWHERE, STORAGE_UNAVAILABLE."""
        config = self._stored(session.tenant, session.config)
        await self._store.reconfigure(session.id, config, session.token)

    def claim(self, tenant: str, key: str, content_hash: str) -> Claim | None:
        """The claim to a key, None for no key."""
        if not key:
            return None
        now = time.time()
        return Claim(tenant, key, content_hash, now, now + self._keys_ttl)

    async def transcript(self, tenant: str, session_id: str) -> list[bytes]:
        """The lines of a session's transcript, in order. Raises STORAGE_UNAVAILABLE, BlobMissing."""
        parts = await self._store.parts(tenant, session_id)
        return await asyncio.to_thread(_lines, parts)

    def new_row(self, tenant: str, config: SessionConfig, title: str) -> SessionRow:
        """The row of a session that begins now."""
        now = time.time()
        return SessionRow(
            id=str(uuid.uuid4()),
            tenant=tenant,
            title=title,
            config=self._stored(tenant, config),
            created_at=now,
            updated_at=now,
        )

    def sealed(self, tenant: str, config: SessionConfig) -> SessionConfig:
        """The same with nothing in it that may not be stored."""
        servers = sealed(config.mcp_servers, self._vault, tenant)
        credential = config.credential.seal(self._vault, tenant)
        return replace(config, mcp_servers=servers, credential=credential)

    def _stored(self, tenant: str, config: SessionConfig) -> str:
        return msgspec.json.encode(self.sealed(tenant, config)).decode()

    async def _parts(self, tenant: str, session_id: str) -> Sequence[PartRow]:
        try:
            return await self._store.parts(tenant, session_id)
        except BlobMissing as error:
            raise content_missing() from error


def _lines(parts: Sequence[PartRow]) -> list[bytes]:
    pieces = (zlib.decompress(part.lines).split(b"\n") for part in parts)
    return [line for piece in pieces for line in piece if line]


def config_of(row: SessionRow) -> SessionConfig:
    """How a stored session is set up."""
    return _config_of.decode(row.config)
