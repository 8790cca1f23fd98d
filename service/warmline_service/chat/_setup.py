"""How a session is set up: changed by its caller, or by what was decided in a turn, and stored."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import replace

import structlog

from warmline_service.chat._answers import Change
from warmline_service.chat._ports import Runtime
from warmline_service.chat._runner import Runner
from warmline_service.chat._servers import SessionServers
from warmline_service.chat._turn import Emit
from warmline_service.errors import WarmlineError
from warmline_service.sessions import Session, SessionConfig
from warmline_service.sessions.events import SessionUpdated

_log = structlog.get_logger(__name__)


class Setup:
    """Changes a session's configuration, here, in its process and in the store, and tells of it."""

    def __init__(
        self,
        session: Session,
        runtime: Runtime,
        emit: Emit,
        runner: Runner,
        servers: SessionServers,
    ) -> None:
        self._session = session
        self._runtime = runtime
        self._emit = emit
        self._runner = runner
        self._servers = servers
        # One change at a time, so that what is stored last is what holds.
        self._lock = asyncio.Lock()
        self._told_mode = session.config.permission_mode

    @property
    def changing(self) -> bool:
        """Whether a change is under way."""
        return self._lock.locked()

    async def change(self, change: Change, running: Callable[[], bool]) -> None:
        """Set the session up differently; `running`: whether a turn does, which goes on with its servers.

        All of it or nothing: what the process may have taken of a change that failed is taken back. Raises
        what the change is refused with, and STORAGE_UNAVAILABLE.
        """
        async with self._lock:
            await self._change(change)
            if not running():
                self._servers.open()  # Otherwise when the next turn begins.
            self._tell()

    def tell_mode(self) -> None:
        """Tell of the permission mode, if another one has been decided on."""
        if self._session.config.permission_mode != self._told_mode:
            self._tell()

    async def store(self) -> None:
        """Store what has been decided on."""
        try:
            async with self._lock:
                await self._runtime.sessions.reconfigure(self._session)
        except WarmlineError as error:
            # It holds as long as the session is at work here.
            _log.warning("config not stored", session=self._session.id, reason=error.reason.value)

    async def _change(self, change: Change) -> None:
        session, before = self._session, self._session.config
        wanted = self._runtime.sessions.sealed(session.tenant, change.of(before))
        await self._runtime.check(session.tenant, wanted)
        session.config = wanted
        try:
            await self._runtime.sessions.reconfigure(session)
            await self._runner.change(before)
        except WarmlineError:
            session.config = replace(
                session.config,
                model=before.model,
                permission_mode=before.permission_mode,
                mcp_servers=before.mcp_servers,
                credential=before.credential,
            )
            await self._take_back(wanted)
            raise

    async def _take_back(self, wanted: SessionConfig) -> None:
        try:
            await self._runner.change(wanted)
            await self._runtime.sessions.reconfigure(self._session)
        except WarmlineError as error:
            _log.warning("update not undone", session=self._session.id, reason=error.reason.value)
            # Its next process is set up as the session is.
            self._runtime.pool.forget(self._session.id)

    def _tell(self) -> None:
        config = self._session.config
        self._told_mode = config.permission_mode
        name = self._runtime.catalog.resolve(config.model).id
        self._emit(SessionUpdated(name, config.permission_mode), "", "")
