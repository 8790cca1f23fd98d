"""What is around one process: what it can see, now and later, and who looks after what it uses."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Iterable, Sequence
from pathlib import Path

import structlog

from warmline_service.errors import Reason, WarmlineError
from warmline_service.sandbox import Command, Door, Init, Sandbox
from warmline_service.worker._slot import Slot
from warmline_service.worker._usage import tree
from warmline_service.worker._watch import Watch, Watched

_log = structlog.get_logger(__name__)


class Enclosure:
    """The sandbox of one slot's process; without a sandbox it sees what the service sees.

    `folders` are directories outside of its slot that it may write to.
    """

    def __init__(
        self, slot: Slot, sandbox: Sandbox | None, watch: Watch | None, folders: Sequence[Path]
    ) -> None:
        self.folders = tuple(folders)
        self._slot = slot
        self._sandbox = sandbox
        self._watch = watch
        self._held: Watched | None = None
        self._init: Init | None = None
        self._door: Door | None = None
        self._opening: asyncio.Future[socket.socket] | None = None

    def begin(self, command: Command) -> None:
        """A process is started in it by a command, which may have a door."""
        self._init, self._door = command.init, command.door

    async def open_door(self) -> socket.socket | None:
        """Let what is in it begin: a socket that listens in its network, where it has a door.

        Raises OSError.
        """
        if self._door is None:
            return None
        opening = asyncio.ensure_future(asyncio.to_thread(self._door.open))
        self._opening = opening
        try:
            return await asyncio.shield(opening)
        except asyncio.CancelledError:
            # What a thread has opened is known when it is done, and not before.
            await asyncio.wait({opening})
            if opening.exception() is None:
                opening.result().close()
            raise

    def hold(self, process: Watched) -> None:
        """This is its process: look after what it uses."""
        self._held = process
        if self._watch is not None:
            self._watch.add(process)

    async def settle(self, pid: int) -> None:
        """Bound what a tree of processes uses, and all that it will start. Raises OSError."""
        if self._sandbox is not None:
            await asyncio.to_thread(self._sandbox.join, self._slot.id, lambda: tree(pid))

    async def show(self, places: Iterable[Path]) -> None:
        """Have the process see directories from now on. Raises STORAGE_UNAVAILABLE."""
        sandbox = self._sandbox
        new = [each for each in places if not self._sees(each)]
        if sandbox is None or not new:
            return
        try:
            for place in new:
                await asyncio.to_thread(sandbox.show, self._slot.id, place)
                self.folders = (*self.folders, place)
        except OSError as error:
            raise WarmlineError(
                Reason.STORAGE_UNAVAILABLE,
                f"A workspace cannot be shown to the process: {error.strerror or error}.",
            ) from error

    async def why_ended(self) -> str:
        """What the kernel ended the process for, to complete "the process ..."; empty for nothing."""
        if self._sandbox is None:
            return ""
        try:
            return await asyncio.to_thread(self._sandbox.why_ended, self._slot.id)
        except (OSError, ValueError, KeyError):
            _log.exception("a control group could not be read", process=self._slot.id)
            return ""

    async def empty(self, timeout: float) -> None:
        """The process has ended: end what is left in the sandbox, in `timeout` seconds at most."""
        if self._opening is not None:
            # Both are a thread's until it is done, which with the process gone is soon.
            await asyncio.wait({self._opening})
        if self._door is not None:
            self._door.close()
        if self._init is not None:
            await asyncio.to_thread(self._init.end, timeout)

    async def aclose(self) -> None:
        """Nothing is left in it: take away what it was shown. What cannot be is logged."""
        if self._held is not None and self._watch is not None:
            self._watch.forget(self._held)
        if self._sandbox is None:
            return
        try:
            await asyncio.to_thread(self._sandbox.remove, self._slot.id)
        except OSError:
            _log.exception("a sandbox could not be cleared away", process=self._slot.id)

    def _sees(self, place: Path) -> bool:
        return place.is_relative_to(self._slot.root) or place in self.folders
