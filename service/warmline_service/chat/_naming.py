"""The names that a tenant finds its sessions by: those of the sessions at work here need not be looked up."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Collection

import structlog

from warmline_service.errors import Reason, WarmlineError
from warmline_service.sessions import Session
from warmline_service.store import Claimed, Store

_log = structlog.get_logger(__name__)


class Names:
    """Which session at work here has which name. The store has them too, for all that are not."""

    def __init__(self) -> None:
        # By tenant and name: that which was given it last. The store knows the others.
        self._found: dict[tuple[str, str], Naming] = {}

    def add(self, tenant: str, name: str, naming: Naming) -> None:
        """A session has this name now."""
        self._found[tenant, name] = naming

    def remove(self, tenant: str, name: str, naming: Naming) -> None:
        """It has this name no more."""
        if self._found.get((tenant, name)) is naming:
            del self._found[tenant, name]

    def take(self, tenant: str, name: str) -> str:
        """The session that was given a name last, which has none from now on; empty for none."""
        naming = self._found.get((tenant, name))
        return naming.use() if naming is not None else ""


class Naming:
    """One session's names, used up by whoever finds it and by its next turn.

    What is used up here goes from the store together with the turn that is stored next, so that whoever
    finds a session does not wait for that. Until then it is at work here, and this says that it `owes`.
    """

    def __init__(self, session: Session, store: Store, names: Names) -> None:
        self._session = session
        self._store = store
        self._names = names
        # Those that it is found by; those that whoever has found it can be given back.
        self._given: tuple[str, ...] = ()
        self._taken: tuple[str, ...] = ()
        self._used = False
        self._closed = False
        self._writing = asyncio.Lock()
        # What an earlier service stored is not known.
        self._stored = True

    async def give(self, names: Collection[str]) -> None:
        """Have these in place of those before. Raises SESSION_ELSEWHERE, STORAGE_UNAVAILABLE."""
        session = self._session
        async with self._writing:
            self._hide()
            self._taken, self._used = (), True
            await self._store.name(session.id, session.tenant, names, session.token)
            self._used, self._stored = False, True
            self._show(tuple(dict.fromkeys(names)))

    def use(self) -> str:
        """Whoever finds it uses its names up; gives its id."""
        self._taken = self._hide()
        self._used = True
        return self._session.id

    def close(self) -> None:
        """It is not at work here any more: nobody finds it here, whatever is still being stored."""
        self._closed = True
        self._hide()

    async def until_said(
        self, accept: Callable[[bool], Awaitable[Claimed]], turn_id: str
    ) -> Claimed:
        """Have a turn stored, and the names go with that; `accept` is told whether there may be some.

        Where nothing is stored they are as before: who found the session by one may find it so again.
        """
        async with self._writing:
            shown = self._hide()
            try:
                claimed = await accept(self._stored)
            except WarmlineError as error:
                if error.reason is Reason.STORAGE_UNAVAILABLE and self._used:
                    shown, self._used = self._taken, False
                self._show(shown)
                raise
            if claimed.turn_id == turn_id:
                self._taken, self._used, self._stored = (), False, False
            else:
                self._show(shown)
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
                self._taken, self._used, self._stored = (), False, False

    def _show(self, names: tuple[str, ...]) -> None:
        if self._closed:
            return
        self._given = names
        for name in names:
            self._names.add(self._session.tenant, name, self)

    def _hide(self) -> tuple[str, ...]:
        names, self._given = self._given, ()
        for name in names:
            self._names.remove(self._session.tenant, name, self)
        return names
