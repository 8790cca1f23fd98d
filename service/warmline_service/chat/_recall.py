"""What a new process is told of the conversation, in the best way that has not failed in this turn."""

from __future__ import annotations

from collections.abc import Collection

from warmline_service.chat._context import Context
from warmline_service.errors import Reason, WarmlineError
from warmline_service.sessions.events import Notice, NoticeKind
from warmline_service.store import BlobMissing
from warmline_service.worker import History, Pending, Transcript

# One refusal may be chance; the CLI reads a file twice in the same way.
_REFUSALS = 2
# Above are the codes of processes that a signal ended, which says nothing of what they were given.
_OWN_CODES = range(1, 128)

Past = History | Transcript | None


class Recall:
    """One turn's attempts: injection or resume, as it is better; then resume; then without the past.

    `pending`: the call that the turn goes on from; without the past that is not possible. `answered`: those
    that its message answers.
    """

    def __init__(
        self, context: Context, pending: Pending | None = None, answered: Collection[str] = ()
    ) -> None:
        self._answered = answered
        self._context = context
        self._pending = pending
        self._injecting = True
        self._refusals = 0
        self._unreadable = False

    @property
    def given_up(self) -> bool:
        """Whether there is a past and the process has to go on without it."""
        return self._unreadable or self._refusals >= _REFUSALS

    async def past(self) -> Past:
        """What the next process must be told; None for nothing, or when it is given up.

        Raises STORAGE_UNAVAILABLE.
        """
        if self._pending is not None:
            return await self._going_on(self._pending)
        if not self._context.told or self.given_up:
            return None
        try:
            return await self._context.load(injecting=self._injecting, answered=self._answered)
        except BlobMissing:
            self._unreadable = True
            return None

    async def _going_on(self, pending: Pending) -> Transcript:
        try:
            past = await self._context.pending(pending)
        except BlobMissing:
            past = None
        if past is None or self.given_up:
            text = "The turn cannot go on: what was said before its call could not be read again."
            raise WarmlineError(Reason.CLI_CRASHED, text)
        return past

    def not_injected(self) -> None:
        """A running process did not take it in: the next one has it from its start."""
        self._injecting = False

    def not_started(self, past: Past, error: WarmlineError) -> bool:
        """Whether a start has failed because of the past that it was given."""
        code = error.metadata.get("exitCode", "0")
        own = error.reason is Reason.CLI_CRASHED and int(code) in _OWN_CODES
        refused = isinstance(past, Transcript) and own
        self._refusals += refused
        return refused

    def give_up(self, turn_id: str) -> Notice:
        """A process goes on without the past; what it will know is what later ones are told."""
        if not self._unreadable:
            self._context.forget(turn_id)
        text = "What was said before could not be read again; the model does not know it."
        return Notice(NoticeKind.CONTEXT_LOST, "context_lost", text)
