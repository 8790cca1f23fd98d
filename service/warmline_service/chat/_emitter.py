"""What a session says: each event gets its place in the journal here."""

from __future__ import annotations

import time

from warmline_service.chat._witness import Witness
from warmline_service.sessions import Journal, Session
from warmline_service.sessions.events import Body, Event


class Emitter:
    """Numbers a session's events and gives them to the journal, in the order in which they are said.

    What is said while it is on hold waits: of a turn that is not stored yet nothing may be told.
    """

    def __init__(self, session: Session, journal: Journal, witness: Witness) -> None:
        self._session = session
        self._journal = journal
        self._witness = witness
        self._held: list[tuple[Body, str, str]] | None = None
        self._silent = False

    def emit(self, body: Body, turn_id: str = "", parent: str = "") -> None:
        """Say something, of a turn and of a tool call in it, if of any."""
        if self._held is not None:
            self._held.append((body, turn_id, parent))
        elif not self._silent:
            session = self._session
            self._witness.saw(body, turn_id)
            epoch, seq = max(session.epoch, 1), session.next_seq()
            event = Event(session.id, turn_id, epoch, seq, time.time(), body, parent)
            self._journal.append(session, event)

    @property
    def held(self) -> bool:
        """Whether it is on hold."""
        return self._held is not None

    def hold(self) -> None:
        """Say nothing for the moment."""
        self._held = []

    def go_on(self, first: tuple[Body, str] | None = None, *, without: str = "") -> None:
        """Say `first`, of its turn, and what has waited, but for what is of the turn `without`."""
        held, self._held = self._held or [], None
        if first is not None:
            self.emit(*first)
        for body, turn_id, parent in held:
            if not without or turn_id != without:
                self.emit(body, turn_id, parent)

    def fall_silent(self) -> None:
        """Say nothing any more: the session is another's, who says how its turns end."""
        self._silent = True
