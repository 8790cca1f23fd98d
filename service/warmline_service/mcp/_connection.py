"""One connection to a caller's server, kept up for as long as somebody has a use for it."""

from __future__ import annotations

import asyncio
import importlib
from collections.abc import Callable, Mapping
from contextlib import AsyncExitStack
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import structlog

from warmline_service.addresses import Resolver
from warmline_service.config import McpSettings
from warmline_service.mcp._state import MOST_CALLS, Refused, ServerState, State, Target

if TYPE_CHECKING:
    from warmline_service.mcp._remote import Remote

_log = structlog.get_logger(__name__)

_FIRST_RETRY, _LAST_RETRY = 0.5, 60.0
# How often a server is looked at that says nothing: whether it is there, and what it offers.
_LOOK = 60.0
# One that says so is looked at at once, this often in a row, and then no more than once in so many seconds.
_LOOKS, _LOOK_PAUSE = 5, 10.0
# A connection that has lasted so long begins again with short pauses.
_STABLE = 30.0
# A call that finds the server lost waits so long for it to come back.
_PATIENCE = 5.0
_CLOSE_TIMEOUT = 5.0
_MODULE = "warmline_service.mcp._remote"


class Unreachable(Exception):  # noqa: N818  # named for how the server is
    """There is no answer to be had from the server; the sentence says why."""


class Connection:
    """Connects at once, again and again while it fails, and tells its watchers of every change."""

    def __init__(
        self, target: Target, owner: str, settings: McpSettings, resolver: Resolver
    ) -> None:
        self.watchers: set[Callable[[], None]] = set()
        self.state = ServerState(State.CONNECTING)
        self._target = target
        self._owner = owner
        self._resolver = resolver
        self._settings = settings
        self.closed = asyncio.Event()
        self._remote: Remote | None = None
        self._calls = 0
        self._closing = False
        self._up_since: float | None = None
        self._look = asyncio.Event()
        self._hurry = asyncio.Event()
        self._changed = asyncio.Condition()
        self._task = asyncio.create_task(self._keep(), name="mcp-connection")

    async def aclose(self) -> None:
        """Hang up, within a bound."""
        self._closing = True
        for _ in range(
            2
        ):  # The first may be lost in the library, the second then ends its good-bye.
            self._task.cancel()
            await asyncio.wait({self._task}, timeout=_CLOSE_TIMEOUT)
            if self._task.done():
                break
        else:
            _log.error("mcp connection would not end", kind=self._target.kind)
        self.closed.set()

    def hurry(self) -> None:
        """Somebody waits: try again now."""
        self._hurry.set()

    async def request(self, method: str, params: Mapping[str, Any]) -> dict[str, Any]:
        """Ask the server for something; a call that was lost on the way is not made twice.

        Raises Unreachable, and Refused where the server itself says no.
        """
        if self._calls >= MOST_CALLS:
            raise Unreachable("too many calls of it are under way")
        self._calls += 1
        try:
            remote = await self._available()
            async with asyncio.timeout(self._settings.call_timeout):
                return await self._asked(remote, method, params)
        except TimeoutError:
            seconds = self._settings.call_timeout
            raise Unreachable(f"it did not answer within {seconds:g} s") from None
        finally:
            self._calls -= 1

    async def _asked(
        self, remote: Remote, method: str, params: Mapping[str, Any]
    ) -> dict[str, Any]:
        try:
            return await remote.request(method, params)
        except Refused:
            # Of a server that has been started anew, and knows nothing of us, it says the same.
            self._look.set()
            raise
        except ConnectionError as error:
            raise Unreachable("it was lost before it answered") from error
        except ValueError as error:
            raise Unreachable("it was asked, or answered, what is not MCP") from error

    async def _available(self) -> Remote:
        if self._remote is None:
            self.hurry()
            try:
                async with asyncio.timeout(_PATIENCE), self._changed:
                    await self._changed.wait_for(lambda: self._remote is not None)
            except TimeoutError:
                raise Unreachable(self.state.error or "it is not connected") from None
        assert self._remote is not None
        return self._remote

    async def _keep(self) -> None:
        delay = _FIRST_RETRY
        # In a thread: it takes a second.
        module = await asyncio.to_thread(importlib.import_module, _MODULE)
        loop = asyncio.get_running_loop()
        while True:
            self._hurry.clear()
            self._up_since = None
            try:
                await self._live(module)
            except module.Lost as error:
                why = str(error)
            except TimeoutError:
                why = f"it did not answer within {self._settings.connect_timeout:g} s"
            except Exception:  # noqa: BLE001  # whatever it was, somebody waits to be told
                _log.exception("mcp connection failed", kind=self._target.kind)
                why = "the service could not connect to it"
            up = loop.time() - self._up_since if self._up_since is not None else 0.0
            if self._closing:
                # Where the server hangs up just then, that is all that the library tells of a cancellation.
                return
            # What it offered it will offer again: calls of it say that it is lost.
            await self._tell(replace(self.state, state=State.FAILED, error=why))
            delay = _FIRST_RETRY if up > _STABLE else min(2 * delay, _LAST_RETRY)
            try:
                async with asyncio.timeout(delay):
                    await self._hurry.wait()
            except TimeoutError:
                continue

    async def _live(self, module: Any) -> None:
        """From the greeting until the connection is lost, which raises Lost."""
        timeout = self._settings.connect_timeout
        async with AsyncExitStack() as stack:
            async with asyncio.timeout(timeout):
                dialed = module.dial(
                    self._target, self._owner, self._settings, self._resolver, self._look.set
                )
                remote = await stack.enter_async_context(dialed)
                state = await remote.look()
            self._remote, self._up_since = remote, asyncio.get_running_loop().time()
            pace = _Pace()
            watching = asyncio.create_task(remote.watch())
            try:
                while True:
                    if state != self.state:
                        await self._tell(state)
                    await self._until_look()
                    await pace.next()
                    try:
                        async with asyncio.timeout(timeout):
                            state = await remote.look()
                    except TimeoutError:
                        if not self._calls:
                            raise
                        # It may do one thing at a time: its answer to a call is what is waited for.
            finally:
                self._remote = None
                watching.cancel()
                await asyncio.wait({watching})

    async def _until_look(self) -> None:
        try:
            async with asyncio.timeout(_LOOK):
                await self._look.wait()
        except TimeoutError:
            return
        finally:
            self._look.clear()

    async def _tell(self, state: ServerState) -> None:
        self.state = state
        for watcher in tuple(self.watchers):
            watcher()
        async with self._changed:
            self._changed.notify_all()


class _Pace:
    """How often a server is looked at that says again and again that it has changed."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._left = float(_LOOKS)
        self._last = self._loop.time()

    async def next(self) -> None:
        """Wait until it may be looked at again."""
        now = self._loop.time()
        self._left = min(_LOOKS, self._left + (now - self._last) / _LOOK_PAUSE) - 1.0
        self._last = now
        if self._left < 0:
            await asyncio.sleep(-self._left * _LOOK_PAUSE)
