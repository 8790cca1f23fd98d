"""What is made of a session, a fork or an export, and a session that is made of what somebody brings."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Coroutine, Mapping
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any, Protocol, TypeVar

from warmline_service.chat._conversation import Conversation
from warmline_service.chat._drain import Drain
from warmline_service.chat._ports import Runtime
from warmline_service.errors import Reason, WarmlineError
from warmline_service.sessions import Export, SessionConfig, config_of
from warmline_service.store import Claim, SessionRow

T = TypeVar("T")


class Wholly(Protocol):
    """Waits for work that goes on when the waiting is cancelled."""

    def __call__(self, work: Coroutine[Any, Any, T]) -> Awaitable[T]:
        """What the work gave."""
        ...


class Copies:
    """Copies of sessions, with their files; `live` are the conversations that this service has.

    `wholly` runs what makes one to its end, also where its caller goes away.
    """

    def __init__(
        self, runtime: Runtime, drain: Drain, live: Mapping[str, Conversation], wholly: Wholly
    ) -> None:
        self._wholly = wholly
        self._runtime = runtime
        self._drain = drain
        self._live = live

    async def fork(
        self, tenant: str, session_id: str, turn_id: str, key: str, key_hash: str
    ) -> SessionRow:
        """A new session with another's conversation up to a turn, or the one that the key has.

        Raises as `Sessions.fork` does, and DRAINING.
        """
        self._drain.check()
        claim = self._runtime.sessions.claim(tenant, key, key_hash)
        fork_id = await self.forked(tenant, session_id, turn_id, claim)
        return await self._runtime.store.session(tenant, fork_id)

    @asynccontextmanager
    async def exported(
        self, row: SessionRow, *, workspace: bool, transcript: bool = True
    ) -> AsyncIterator[Export]:
        """A session's export while the context lasts.

        Raises SESSION_BUSY while a turn runs, STORAGE_UNAVAILABLE.
        """
        live = self._live.get(row.id)
        if live is not None and live.running:
            raise _busy("A turn of this session runs or waits.")
        if live is None:
            await self._runtime.store.check_here(row.id)
        else:
            await self._runtime.journal.flushed(live.session)
        row = await self._settled(row)
        work = live.work if live is not None else None
        exporting = self._runtime.portable.exported(
            row, work, workspace=workspace, transcript=transcript
        )
        async with exporting as export:
            if live is not None and live.work != work:
                raise _busy("The session's process has ended just now.")
            yield export

    @asynccontextmanager
    async def files(self, row: SessionRow) -> AsyncIterator[Path | None]:
        """A copy of a session's workspace, while the context lasts; None where it is empty.

        Raises SESSION_BUSY while a turn runs, STORAGE_UNAVAILABLE, QUOTA_EXCEEDED for one that is too
        large to be copied.
        """
        workspaces, name = self._runtime.workspaces, config_of(row).workspace
        async with AsyncExitStack() as stack:
            if name:
                named = await asyncio.to_thread(workspaces.named, row.tenant, name)
                archive = await stack.enter_async_context(workspaces.packed(named))
            else:
                exported = self.exported(row, workspace=True, transcript=False)
                archive = (await stack.enter_async_context(exported)).workspace
            if archive is None:
                yield None
            else:
                yield await stack.enter_async_context(workspaces.unpacked(archive))

    async def import_(
        self,
        tenant: str,
        config: SessionConfig,
        title: str,
        transcript: bytes,
        workspace: Path | None,
    ) -> SessionRow:
        """A new session with what somebody brings. Raises as `Portable.import_` does, and DRAINING."""
        self._drain.check()
        await self._runtime.check(tenant, config)
        importing = self._runtime.portable.import_(tenant, config, title, transcript, workspace)
        session_id = await self._wholly(importing)
        return await self._runtime.store.session(tenant, session_id)

    def scratch(self) -> AbstractAsyncContextManager[Path]:
        """A place for a file that is being received; it is gone afterwards."""
        return self._runtime.workspaces.scratch()

    async def forked(
        self,
        tenant: str,
        session_id: str,
        turn_id: str,
        claim: Claim | None,
        config: SessionConfig | None = None,
    ) -> str:
        """As `fork`, for a claim, maybe with another config; the id. Raises as `Sessions.fork` does."""
        forking = self._runtime.sessions.fork(
            tenant,
            session_id,
            turn_id,
            claim,
            config=config,
            copy_workspace=self._copy_workspace,
        )
        return await self._wholly(forking)

    async def _copy_workspace(self, row: SessionRow, session_id: str) -> str:
        workspaces = self._runtime.workspaces
        live = self._live.get(row.id)
        if live is not None and (work := live.work) is not None:
            try:
                async with workspaces.packed(work) as archive:
                    if live.work == work:
                        if archive is None:
                            return ""
                        return await workspaces.keep(row.tenant, session_id, archive)
            except WarmlineError:
                if live.work == work:
                    raise
        # Its process has ended, maybe while the files were looked at: they are being saved.
        row = await self._settled(row)
        if row.workspace_key:
            return await workspaces.copy(row.tenant, row.workspace_key, session_id)
        return ""

    async def _settled(self, row: SessionRow) -> SessionRow:
        """The session's row when the files of a process that has ended here were saved."""
        store, live = self._runtime.store, self._live.get(row.id)
        if live is not None and live.hot:
            return row
        row = await store.session(row.tenant, row.id)
        if row.slot_id:
            await self._runtime.workspaces.settled(row.slot_id)
            row = await store.session(row.tenant, row.id)
        return row


def _busy(why: str) -> WarmlineError:
    return WarmlineError(Reason.SESSION_BUSY, why, retry_after=1.0)
