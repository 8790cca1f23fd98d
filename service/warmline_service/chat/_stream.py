"""One caller's stream on a session: what it is told, and whether it may speak."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection

from warmline_service.errors import Reason, WarmlineError
from warmline_service.sessions import Session, Subscription
from warmline_service.sessions.events import (
    BLOCK_EVENTS,
    Body,
    Detail,
    Event,
    Notice,
    NoticeKind,
    Raw,
    ServerDraining,
    StopReason,
    TurnAttached,
    TurnCompleted,
    TurnFailed,
    Usage,
    kind_of,
)
from warmline_service.store import TurnRow, TurnState


def wanted(
    detail: Detail, kinds: Collection[str] = (), turn_id: str | None = None
) -> Callable[[Event], bool]:
    """Which events a stream is told: of a detail, of some kinds, of one turn."""

    def wants(event: Event) -> bool:
        if turn_id is not None and event.turn_id != turn_id:
            return False
        if kinds and kind_of(event.body) not in kinds:
            return False
        if detail is Detail.TEXT:
            return not isinstance(event.body, BLOCK_EVENTS)
        return detail is Detail.RAW or not (isinstance(event.body, Raw) and event.body.echo)

    return wants


class Stream:
    """What a call holds while it is attached to a session. The session's one writer may `speak`."""

    def __init__(
        self,
        subscription: Subscription,
        session_id: str,
        epoch: Callable[[], int],
        *,
        interrupt_when_lost: bool = False,
    ) -> None:
        self.subscription = subscription
        self.session_id = session_id
        self.interrupt_when_lost = interrupt_when_lost
        self._epoch = epoch
        self._writable = True

    def tell(self, body: Body, turn_id: str = "") -> None:
        """Tell this stream alone: what is not stored."""
        event = Event(self.session_id, turn_id, self._epoch(), 0, time.time(), body)
        self.subscription.tell(event)

    def only(self, turn_id: str, detail: Detail) -> None:
        """Tell of one turn alone, and end with it; before anything has been told."""
        self.subscription.restrict(wanted(detail, (), turn_id))
        self.subscription.finish_with(turn_id)

    def attach_turn(self, turn_id: str, key: str) -> None:
        """Tell of a message that was sent before, and its turn from the beginning."""
        self.tell(TurnAttached(key), turn_id)
        self.subscription.replay(turn_id)

    def tell_expired(self, after: int, first: int, last: int) -> None:
        """Say so where events after a cursor are not kept: from `first` on they are, to `last`."""
        if last > after and (first or last + 1) > after + 1:
            text = "Events after the cursor are no longer kept; what follows begins later."
            self.tell(Notice(NoticeKind.EVENTS_EXPIRED, "events_expired", text))

    def tell_gone(self, turn: TurnRow) -> None:
        """Tell the end of a turn that has ended and whose events are not kept any more."""
        text = "The events of this turn are no longer kept."
        self.tell(Notice(NoticeKind.EVENTS_EXPIRED, "events_expired", text), turn.id)
        if turn.state is TurnState.COMPLETED:
            self.tell(TurnCompleted(StopReason.UNSPECIFIED, "", Usage(), None), turn.id)
        else:
            error = WarmlineError(Reason.CLI_CRASHED, f"The turn failed. {text}")
            self.tell(TurnFailed(error, key=turn.key), turn.id)

    def warn(self, code: str, text: str, **metadata: str) -> None:
        """Tell of something that could not be done, and that ends nothing."""
        self.tell(Notice(NoticeKind.WARNING, code, text, metadata))

    def drain(self, retry_after: float, seq: int) -> None:
        """Tell that the service is going away."""
        self.tell(ServerDraining(retry_after, self._epoch(), seq))

    def silence(self) -> None:
        """Another stream has the session now."""
        self._writable = False
        text = "Another stream has taken this session over; this one can only read."
        self.tell(Notice(NoticeKind.TAKEN_OVER, "taken_over", text))

    def may_speak(self) -> None:
        """Raise SESSION_BUSY where the session was taken over."""
        if not self._writable:
            raise WarmlineError(
                Reason.SESSION_BUSY, "Another stream has taken this session over.", retry_after=1.0
            )


def opened_position(session: Session) -> tuple[int, int]:
    """A session's epoch, and the seq of the last event that it will still have had after a crash."""
    return max(session.epoch, 1), session.stored
