"""The names that a tenant finds its sessions by: those of the sessions at work here need not be looked up."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Collection

import structlog

from warmline_service.errors import WarmlineError
from warmline_service.sessions import Session
from warmline_service.store import Claimed, Store

_log = structlog.get_logger(__name__)


class Names:
    """Which session at work here has which name. The store has them too, for all that are not."""

    def __init__(self) -> None:
        # By tenant and name: sessions, that which was given it last at the end.
        self._found: dict[tuple[str, str], list[str]] = {}

    def add(self, tenant: str, name: str, session_id: str) -> None:
        """A session has this name, too."""
        self._found.setdefault((tenant, name), []).append(session_id)

    def remove(self, tenant: str, name: str, session_id: str) -> None:
        """It has this name no more."""
        found = self._found[tenant, name]
        found.remove(session_id)
        if not found:
            del self._found[tenant, name]

    def find(self, tenant: str, name: str) -> str:
        """The session that was given a name last; empty for none."""
        found = self._found.get((tenant, name))
        return found[-1] if found else ""


class Naming:
    """One session's names, used up by whoever finds it and by its next turn.

    What is used up here goes from the store together with the turn that is stored next, so that whoever
    finds a session does not wait for that. Until then it is at work here, and this says that it `owes`.
    """

    def __init__(self, session: Session, store: Store, names: Names) -> None:
        self._session = session
        self._store = store
        self._names = names
        self._given: tuple[str, ...] = ()
        self._used = False
        self._writing = asyncio.Lock()
        # What an earlier service stored is not known.
        self._stored = True

    async def give(self, names: Collection[str]) -> None:
        """Have these in place of those before. Raises SESSION_ELSEWHERE, STORAGE_UNAVAILABLE."""
        session = self._session
        async with self._writing:
            self.use()
            await self._store.name(session.id, session.tenant, names, session.token)
            self._used, self._stored = False, True
            self._given = tuple(dict.fromkeys(names))
            for name in self._given:
                self._names.add(session.tenant, name, session.id)

    def use(self) -> None:
        """Nobody else finds it by them."""
        self.forget()
        self._used = True

    def forget(self) -> None:
        """It is not at work here any more, or has none."""
        for name in self._given:
            self._names.remove(self._session.tenant, name, self._session.id)
        self._given = ()

    async def until_said(
        self, accept: Callable[[bool], Awaitable[Claimed]], turn_id: str
    ) -> Claimed:
        """Have a turn stored, and the names go with that; `accept` is told whether there may be some."""
        async with self._writing:
            claimed = await accept(self._stored)
            if claimed.turn_id == turn_id:
                self.forget()
                self._used = self._stored = False
            return claimed

    @property
    def owes(self) -> bool:
        """Whether names that are used up are still stored."""
        return self._used and self._stored

    async def settle(self) -> None:
        """Take from the store what is used up; what fails is done with the next turn."""
        session = self._session
        async with self._writing:
            if not self.owes:
                return
            try:
                await self._store.name(session.id, session.tenant, (), session.token)
            except WarmlineError as error:
                _log.info("names not removed", session=session.id, reason=error.reason.value)
            else:
                self._used = self._stored = False
