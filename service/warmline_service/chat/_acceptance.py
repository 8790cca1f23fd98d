"""A message becomes durable, once, also where the store does not say whether it has it."""

from __future__ import annotations

from warmline_service.chat._naming import Naming
from warmline_service.chat._ports import Runtime
from warmline_service.errors import Reason, WarmlineError
from warmline_service.sessions import Session
from warmline_service.store import Claim, Claimed, TurnRow

# A transaction that was given up may still be done after the first withdrawal.
_TRIES = 3


class Acceptance:
    """Stores a session's turns.

    A turn whose storing failed may be stored all the same, after its message was refused. Before the
    next is stored it is withdrawn, so that the message can be sent again and runs then.
    """

    def __init__(self, session: Session, runtime: Runtime, naming: Naming) -> None:
        self._session = session
        self._naming = naming
        self._runtime = runtime
        self._doubtful: set[str] = set()

    async def accept(self, row: TurnRow, title: str, claim: Claim | None) -> Claimed:
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
