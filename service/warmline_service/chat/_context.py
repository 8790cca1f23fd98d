"""A session's context outside of any process: its transcript and its files, kept and given again."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Sequence
from dataclasses import replace
from pathlib import Path

import structlog

from warmline_service.chat._ports import Runtime
from warmline_service.sessions import Session
from warmline_service.sessions.events import Notice, NoticeKind
from warmline_service.store import ArchiveRefused, ArchiveTooLarge, BlobMissing
from warmline_service.worker import (
    FORGOTTEN,
    Capture,
    CliMessage,
    CliProcess,
    Content,
    Exit,
    History,
    Pending,
    Slot,
    Transcript,
    TranscriptMirror,
    going_on,
    rehydrate,
    unanswered,
)

_log = structlog.get_logger(__name__)


class Context:
    """What a session is apart from its process; listens to the process between turns.

    `on_gone` is called when the process has ended, and when its files have been saved.
    """

    def __init__(self, session: Session, runtime: Runtime, on_gone: Callable[[], None]) -> None:
        self._turn_id = ""
        self._capture: Capture | None = None
        self._session = session
        self._runtime = runtime
        self._on_gone = on_gone
        self._slot_id = ""
        self._saving: asyncio.Future[None] | None = None
        # Whether some of the files could not be had, and nobody has been told.
        self._files_lost = False

    @property
    def saving(self) -> bool:
        """Whether files of the session are, or will be, only where its last process left them."""
        return self._saving is not None and not self._saving.done()

    @property
    def told(self) -> bool:
        """Whether there is anything that a new process has to be told."""
        return self._session.parts > 0

    def begin(self, turn_id: str, content: Content | None) -> None:
        """What is added to the transcript from now on is this turn's; None: its message is there."""
        self._turn_id = turn_id
        self._capture = Capture(turn_id, content)

    def keep_lost(self) -> None:
        """The process has ended in the turn: keep what it has shown of it."""
        if self._capture is not None:
            self._keep(self._capture.lost())

    def hear(self, message: CliMessage) -> None:
        """A line of the turn."""
        if self._capture is not None:
            self._keep(self._capture.hear(message))

    def on_messages(self, batch: Sequence[CliMessage]) -> None:
        """Between turns only the transcript is of interest, which comes late."""
        for message in batch:
            if isinstance(message, TranscriptMirror):
                self.hear(message)

    def on_exit(self, exit: Exit) -> None:  # noqa: A002  # the sink's own word
        """The session's next turn finds out by itself."""

    async def load(
        self, *, injecting: bool, answered: Collection[str]
    ) -> History | Transcript | None:
        """The conversation so far, in the better way to give it to a process; None for nothing.

        Without `injecting` it is for a process that starts with it; `answered` are the calls at its end that
        the next message answers. Raises STORAGE_UNAVAILABLE;
        BlobMissing where a part of it is gone.
        """
        lines = await self._lines()
        can = self._runtime.capabilities
        can = replace(can, injection=can.injection and injecting)
        return await asyncio.to_thread(rehydrate, lines, can, answered)

    async def pending(self, pending: Pending) -> Transcript | None:
        """The conversation up to a call that waits, for a process that goes on. Raises as `load` does."""
        lines = await self._lines()
        return await asyncio.to_thread(going_on, lines, pending)

    async def unanswered(self) -> set[str]:
        """The tool calls of the model's last answer that have no result yet. Raises STORAGE_UNAVAILABLE."""
        try:
            lines = await self._lines()
        except BlobMissing:
            return set()
        shown = self._capture.lost() if self._capture is not None else []
        return await asyncio.to_thread(unanswered, [*lines, *shown])

    async def _lines(self) -> list[bytes]:
        session, runtime = self._session, self._runtime
        # The last process may have ended a moment ago.
        await runtime.journal.flushed(session)
        return await runtime.sessions.transcript(session.tenant, session.id)

    def forget(self, turn_id: str) -> None:
        """What was said before this turn is told to no process any more."""
        self._runtime.journal.append_transcript(self._session, turn_id, [FORGOTTEN])

    async def workspace(self) -> Path | None:
        """The directory of the session's named workspace, if it has one. Raises STORAGE_UNAVAILABLE."""
        session = self._session
        if not session.config.workspace:
            return None
        named = self._runtime.workspaces.named
        return await asyncio.to_thread(named, session.tenant, session.config.workspace)

    async def directories(self) -> tuple[Path, ...]:
        """Those of other named workspaces that the session may use. Raises STORAGE_UNAVAILABLE."""
        session, named = self._session, self._runtime.workspaces.named
        names = session.config.add_directories
        made = (asyncio.to_thread(named, session.tenant, name) for name in names)
        return tuple([await each for each in made])

    async def place(self, process: CliProcess) -> Notice | None:
        """Make a fresh process the keeper of the session's own files; says so where some are lost.

        Raises STORAGE_UNAVAILABLE, and CLI_CRASHED where it has ended meanwhile.
        """
        session, store = self._session, self._runtime.store
        process.exited.add_done_callback(lambda _: self._on_gone())
        if session.config.workspace:
            return None
        self._files_lost |= not await self._look()
        if session.workspace_key:
            self._files_lost |= not await self._restore(process)
        await store.place_workspace(session.id, process.slot.id)
        if process.wiping:
            # Nobody has written anything there: the files are where they were.
            await store.replace_workspace(session.id, process.slot.id, session.workspace_key)
            raise (await process.exited).error()
        workspaces = self._runtime.workspaces
        saving = workspaces.expect(process.slot.id)
        saving.add_done_callback(lambda _: self._on_gone())
        self._slot_id, self._saving = process.slot.id, saving

        async def save(slot: Slot) -> None:
            try:
                await workspaces.save(session.tenant, session.id, slot.work, slot.id)
            finally:
                if not saving.done():
                    saving.set_result(None)

        process.before_wipe = save
        lost, self._files_lost = self._files_lost, False
        return _files_lost() if lost else None

    async def saved(self) -> None:
        """Wait, within a bound, until the files of a process that has ended were saved."""
        await self._runtime.workspaces.settled(self._slot_id)

    async def _look(self) -> bool:
        """See where the last process's files were saved; False if they were not."""
        await self.saved()
        session = self._session
        if self._saving is None and not self.told:
            return True  # It has had no process yet.
        store, workspaces = self._runtime.store, self._runtime.workspaces
        row = await store.session(session.tenant, session.id)
        if row.slot_id not in ("", self._slot_id):
            # That of a process which the session had here before it was lost and loaded again.
            await workspaces.settled(row.slot_id)
            row = await store.session(session.tenant, session.id)
        if row.slot_id:
            await workspaces.save_late(row)
            row = await store.session(session.tenant, session.id)
        session.workspace_key = row.workspace_key
        return not row.slot_id

    async def _restore(self, process: CliProcess) -> bool:
        try:
            key, slot = self._session.workspace_key, process.slot
            await self._runtime.workspaces.restore(key, slot.work, slot.owner)
        except (BlobMissing, ArchiveRefused, ArchiveTooLarge) as error:
            _log.error("workspace lost", session=self._session.id, error=str(error))
            return False
        return True

    def _keep(self, lines: Sequence[bytes]) -> None:
        if lines:
            self._runtime.journal.append_transcript(self._session, self._turn_id, lines)


def _files_lost() -> Notice:
    text = "The files that the session wrote last could not be saved; older ones may be in their place."
    return Notice(NoticeKind.WARNING, "workspace_lost", text)
