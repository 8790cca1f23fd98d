"""A message becomes a turn, once: admitted, and durable, also where the store does not say whether it is."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable

from warmline_service.chat._naming import Naming
from warmline_service.chat._ports import Runtime
from warmline_service.chat._queue import Queue
from warmline_service.chat._stream import Stream
from warmline_service.chat._turn import Phase, Turn
from warmline_service.errors import Reason, WarmlineError
from warmline_service.sessions import Session
from warmline_service.sessions.events import TurnFailed
from warmline_service.store import Claim, Claimed, TurnRow, TurnState

# A transaction that was given up may still be done after the first withdrawal.
_TRIES = 3
_KEYS = 64


class Acceptance:
    """Admits a session's messages, and stores their turns.

    A turn whose storing failed may be stored all the same, after its message was refused. Before the
    next is stored it is withdrawn, so that the message can be sent again and runs then.
    """

    def __init__(self, session: Session, runtime: Runtime, naming: Naming, queue: Queue) -> None:
        self._session = session
        self._queue = queue
        self._naming = naming
        self._runtime = runtime
        self._doubtful: set[str] = set()
        # Of the last messages, which somebody may send again.
        self._keys: deque[str] = deque(maxlen=_KEYS)

    def knows(self, key: str) -> bool:
        """Whether a message with this key was accepted a short while ago."""
        return bool(key) and key in self._keys

    async def claim(self, turn: Turn, admitted: Callable[[], None], *, counted: bool) -> Claimed:
        """Make the message durable as `turn`, or find the turn that it has already.

        `admitted` is called when nothing but the store can refuse it. Raises what it is refused with: see
        `Conversation.submit`.
        """
        session, message = self._session, turn.message
        claim = self._runtime.sessions.claim(session.tenant, message.key, message.content_hash())
        try:
            self._queue.check(message)
            self._runtime.journal.check()
            if counted:
                await self._runtime.quota.request(session.tenant)
            turn.place = await self._runtime.quota.admit(session.tenant)
        except WarmlineError:
            # A message that was sent before is not refused: it has its turn already.
            found = await self._runtime.store.claimed(claim) if claim is not None else None
            if found is None:
                raise
            return found
        # Whether one that begins at once had asked the model when the service ended cannot be known
        # afterwards; of one that waits it is stored when it begins.
        turn.waits = not self._queue.quiet
        row = TurnRow(
            id=turn.id,
            session_id=session.id,
            number=session.turns + 1,
            key=message.key,
            state=TurnState.QUEUED if turn.waits else TurnState.RUNNING,
            first_seq=session.seq + 1,
            last_seq=0,
            created_at=time.time(),
        )
        admitted()
        claimed = await self._store(row, message.title, claim)
        if message.key:
            self._keys.append(message.key)
        return claimed

    async def attach(self, stream: Stream, claimed: Claimed, key: str) -> None:
        """Let a stream be told of the turn that a message has already.

        Raises IDEMPOTENCY_CONFLICT for one of another session.
        """
        if claimed.session_id != self._session.id:
            raise WarmlineError(
                Reason.IDEMPOTENCY_CONFLICT,
                "This idempotency key was used before, in another session.",
                metadata={"sessionId": claimed.session_id, "turnId": claimed.turn_id},
            )
        await self._runtime.journal.flushed(self._session)
        store = self._runtime.store
        turn = await store.turn(self._session.id, claimed.turn_id)
        gone = turn is not None and not await store.kept(turn)
        stream.attach_turn(claimed.turn_id, key)
        if turn is not None and gone:
            stream.tell_gone(turn)

    async def _store(self, row: TurnRow, title: str, claim: Claim | None) -> Claimed:
        """Whose the key is: the turn's, or that of an earlier one with the same message.

        Raises STORAGE_UNAVAILABLE, IDEMPOTENCY_CONFLICT, SESSION_ELSEWHERE.
        """
        store, token = self._runtime.store, self._session.token
        for _ in range(_TRIES):
            if self._doubtful:
                await store.withdraw(self._session.id, self._doubtful)
            try:
                claimed = await self._naming.until_said(
                    lambda named: store.accept(row, title, claim, token, named=named), row.id
                )
            except WarmlineError as error:
                if error.reason is Reason.STORAGE_UNAVAILABLE:
                    self._doubtful.add(row.id)
                raise
            if claimed.turn_id not in self._doubtful:
                self._doubtful.clear()
                return claimed
        raise WarmlineError(
            Reason.STORAGE_UNAVAILABLE, "The store is not itself again yet.", retry_after=1.0
        )


def refuse(stream: Stream, turn: Turn, error: WarmlineError) -> None:
    """Tell a stream that its message is not accepted."""
    turn.phase = Phase.ENDED
    turn.leave_place()
    # Never stored: whoever loses the stream before hearing of it sends the message again, and
    # must not be told of a failure by a replay while it runs.
    stream.tell(TurnFailed(error, key=turn.message.key), turn.id)
