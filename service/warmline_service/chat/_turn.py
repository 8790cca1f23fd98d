"""One turn: a message, and all that follows from it until its one end."""

from __future__ import annotations

import asyncio
import contextlib
import enum
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from msgspec import structs

from warmline_service.chat._early import Early
from warmline_service.chat._translate import Translator, begins_turn, raw, result_of
from warmline_service.errors import Reason, WarmlineError
from warmline_service.quota import Place
from warmline_service.sessions import UserMessage
from warmline_service.sessions.events import (
    Body,
    InterruptOutcome,
    Latency,
    Raw,
    TextDelta,
    ThinkingDelta,
    Usage,
)
from warmline_service.worker import (
    Assistant,
    CliMessage,
    CliProcess,
    Content,
    Exit,
    MessageStart,
    MessageStop,
    Result,
    Sink,
    StreamEvent,
    TranscriptMirror,
    User,
)

# An interrupt that the CLI took before it had begun the turn is lost, so it is sent again.
_INTERRUPT_AGAIN = 1.0


# Takes an event's body, its turn, and the tool call of the sub-agent that it belongs to.
Emit = Callable[[Body, str, str], None]


class Listener(Sink, Protocol):
    """Hears what a process adds to its transcript, in a turn and between turns."""

    def begin(self, turn_id: str, content: Content | None) -> None:
        """A turn begins with this, or goes on."""
        ...

    def hear(self, message: CliMessage) -> None:
        """One line of a turn that is, or shows, a part of the transcript."""
        ...


class Wait(Protocol):
    """Says what others keep a turn waiting for."""

    @property
    def waiting(self) -> bool:
        """Whether they do, so that its silence is not its own."""
        ...

    def rested(self) -> float:
        """For how many seconds they have, of those that are not counted."""
        ...


class Phase(enum.Enum):
    """How far a turn is; PARKED: it waits for an answer, and no process with it."""

    WAITING = "waiting"
    RUNNING = "running"
    PARKED = "parked"
    ENDED = "ended"


@dataclass(frozen=True)
class Bounds:
    """A turn's limits, in seconds."""

    turn: float
    stall: float
    interrupt: float


class Parked:
    """A turn goes on in another process than it was in."""


class Turn:
    """One message on its way through one process; the process's sink while it runs."""

    def __init__(self, message: UserMessage, emit: Emit, deadline: float | None) -> None:
        self.id = str(uuid.uuid4())
        self.message = message
        self.deadline = deadline
        self.phase = Phase.WAITING
        self.latched = asyncio.Event()
        # Whether it is stored: it may have begun before that is known.
        self.settled: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        self._rest: Listener | None = None
        self._goes_on = False
        # Whether somebody wants every line as it was.
        self.raw = False
        # Whether it was accepted behind others, so that its beginning has to be stored.
        self.waits = False
        self.denied_by: WarmlineError | None = None
        # Among the turns of its tenant; given up when it ends, or waits without a process.
        self.place: Place | None = None
        self._loop = asyncio.get_running_loop()
        self.accepted_at = self._loop.time()
        self._emit = emit
        self._translator = Translator()
        self._begun: asyncio.Future[None] = self._loop.create_future()
        self._interrupted = False
        # Whether the model is not in the middle of an answer.
        self.spoken = asyncio.Event()
        self.spoken.set()
        # What it used in processes that it is in no more, and how often it asked the model there.
        self.used = Usage()
        self.requests = 0
        self._ran_from: float | None = None
        self.end: asyncio.Future[Result | Exit | Parked] = self._loop.create_future()
        self._last_heard = self.accepted_at
        self._first_token: float | None = None

    @classmethod
    def left(cls, turn_id: str, key: str, emit: Emit) -> Turn:
        """A turn that an earlier service has left parked."""
        turn = cls(UserMessage("", key), emit, None)
        turn.settled.set_result(True)
        turn.id = turn_id
        turn._begun.set_result(None)
        turn.rest()
        return turn

    def withdraw(self) -> None:
        """It is not stored: it ends, if it has begun, and so does the process that has its message."""
        self.settled.set_result(False)
        self.latched.set()
        if not self.end.done():
            self.end.set_result(Exit(None, None, "", "has a message that was not stored"))

    def park(self) -> bool:
        """Go on in another process, later; False where it is ending."""
        if self.end.done() or self._interrupted:
            return False
        for parent, body in self._translator.flush():
            self._emit(body, self.id, parent)
        self.end.set_result(Parked())
        return True

    @property
    def stopping(self) -> bool:
        """Whether somebody, or a bound, has asked it to end."""
        return self._interrupted or self.denied_by is not None

    def leave(self, used: Usage, requests: int) -> None:
        """A process has been left that has used so much for the turn."""
        self.used = self.used.plus(used)
        self.requests += requests

    def rest(self) -> None:
        """It is in no process any more, and in none yet."""
        self.leave_place()
        self.phase = Phase.PARKED
        if self.stopping:
            self.latched.set()
        self.deadline = None  # Of who waited for its process then.
        self.end = self._loop.create_future()
        self._translator = Translator()
        self.spoken.set()

    async def run(
        self,
        process: CliProcess,
        bounds: Bounds,
        rest: Listener,
        wait: Wait,
        go_on: Callable[[], None] | None = None,
    ) -> Result | Exit | Parked:
        """Send the message and wait for the end: an Exit when the process was lost or given up.

        `denied_by` says so when a bound ended the turn. `rest` hears what is added to the transcript,
        and listens when the turn does no longer. What comes before the turn is stored waits. With `go_on`
        the process has the message, and goes on when that is called.
        """
        self.phase = Phase.RUNNING
        self._rest, self._goes_on = rest, go_on is not None
        early = None if self.settled.done() else Early(self, process, rest)
        if early is None:
            self.begin(process)
        # By itself: a process that does not read must not keep a bound or an interrupt waiting.
        sending = asyncio.create_task(self._begin(process, go_on))
        try:
            await self._known_or_ended()
            self._last_heard = self._loop.time()
            if self._ran_from is None:
                self._ran_from = self._last_heard
            reason = await self._watch(self._ran_from + bounds.turn, bounds.stall, wait)
            if reason is not None:
                self.denied_by = self.denied_by or reason
                await self.interrupt(process, bounds.interrupt)
            return self.end.result()
        finally:
            if not sending.done():
                sending.cancel()
                await asyncio.wait({sending})
            self.phase = Phase.ENDED
            if early is not None:
                early.close()
            if self.stored:
                process.attach(rest)

    def begin(self, process: CliProcess) -> None:
        """Listen to the process: what it says from now on is the turn's, and is known to be."""
        if self._rest is not None:
            self._rest.begin(self.id, None if self._goes_on else self.message.blocks())
        process.attach(self)

    async def known(self) -> None:
        """Wait until it is known whether it is stored; at once where it is."""
        if not self.settled.done():
            await asyncio.wait({self.settled})

    async def _known_or_ended(self) -> None:
        """The same, or it has ended: soon, as the store gives up."""
        if not self.settled.done():
            known: set[asyncio.Future[Any]] = {self.settled, self.end}
            await asyncio.wait(known, return_when=asyncio.FIRST_COMPLETED)

    @property
    def stored(self) -> bool:
        """Whether it is known to be stored."""
        return self.settled.done() and self.settled.result()

    @property
    def _withdrawn(self) -> bool:
        return self.settled.done() and not self.settled.result()

    async def interrupt(self, process: CliProcess, timeout: float) -> InterruptOutcome:
        """Stop the turn within `timeout` seconds, or give the process up: FORCED."""
        self._interrupted = True
        ended = self.end
        await self._known_or_ended()
        if self._withdrawn:
            return InterruptOutcome.NOTHING_RUNNING
        until = self._loop.time() + timeout
        either: set[asyncio.Future[Any]] = {self._begun, ended}
        await asyncio.wait(either, timeout=timeout, return_when=asyncio.FIRST_COMPLETED)
        while not ended.done() and (left := until - self._loop.time()) > 0:
            # One that is not answered is no worse than one that does not help.
            with contextlib.suppress(WarmlineError, TimeoutError):
                async with asyncio.timeout(left):
                    await process.interrupt()
            left = max(0.0, until - self._loop.time())
            await asyncio.wait({ended}, timeout=min(left, _INTERRUPT_AGAIN))
        if not ended.done():
            ended.set_result(Exit(None, None, "", "did not stop when interrupted"))
        if ended.exception() is not None:
            return InterruptOutcome.NOTHING_RUNNING
        end = ended.result()
        if isinstance(end, Parked):
            self.latched.set()
            return InterruptOutcome.STOPPED
        if isinstance(end, Exit):
            return InterruptOutcome.FORCED
        return InterruptOutcome.STOPPED if end.interrupted else InterruptOutcome.NOTHING_RUNNING

    def heard(self) -> None:
        """Somebody whom the turn waited for has answered: its silence begins now."""
        self._last_heard = self._loop.time()

    def renew(self) -> bool:
        """Make the turn ready for another process; False where it may have had an effect already."""
        if self._withdrawn or self._begun.done() or self._interrupted or self.denied_by is not None:
            return False
        self.phase = Phase.WAITING
        self.end = self._loop.create_future()
        return True

    def leave_place(self) -> None:
        """Count it no more among the turns of its tenant. Idempotent."""
        if self.place is not None:
            self.place.release()

    def latency(self, start: Latency) -> Latency:
        """The receipt as it stands, from what getting the process took."""
        end = self.end.result() if self.end.done() else None
        in_cli = end.time_to_request_ms if isinstance(end, Result) else None
        return structs.replace(
            start,
            cli=in_cli / 1000 if in_cli is not None else None,
            first_token=self._since_accepted(self._first_token),
            total=self._since_accepted(self._loop.time()),
        )

    def on_messages(self, batch: Sequence[CliMessage]) -> None:
        """Take what the process wrote: emit its events, notice the beginning and the end."""
        self._last_heard = self._loop.time()
        for message in batch:
            if isinstance(message, TranscriptMirror):
                self._hear(message)
                continue
            if self.end.done():
                continue
            if not self._begun.done():
                # What an earlier turn left behind is not this turn's.
                if not begins_turn(message, self.id):
                    continue
                self._begun.set_result(None)
            if type(message) is StreamEvent:  # Nearly all are, and nothing else than told.
                self._tell(message)
                continue
            if isinstance(message, Assistant | User):
                self._hear(message)
            result = result_of(message, self.id)
            if result is not None:
                if self.raw:
                    self._emit(raw(message, echo=True), self.id, "")
                for parent, body in self._translator.flush():
                    self._emit(body, self.id, parent)
                self.end.set_result(result)
            else:
                self._tell(message)

    def _hear(self, message: CliMessage) -> None:
        if self._rest is not None:
            self._rest.hear(message)

    def on_exit(self, exit: Exit) -> None:  # noqa: A002  # the sink's own word
        """The process is gone."""
        if not self.end.done():
            self.end.set_result(exit)

    async def _begin(self, process: CliProcess, go_on: Callable[[], None] | None) -> None:
        if go_on is not None:
            go_on()
            return
        try:
            verbatim = not self.message.interpret
            await process.send_user(self.message.blocks(), self.id, verbatim=verbatim)
        except WarmlineError as error:
            if error.reason is Reason.CLI_CRASHED:
                self.on_exit(Exit(None, None, process.stderr_tail, "could not be written to"))
            elif not self.end.done():
                self.end.set_exception(error)

    def _tell(self, message: CliMessage) -> None:
        if type(message) is StreamEvent and message.parent_tool_use_id is None:
            kind = type(message.event)
            if kind is MessageStart:
                self.spoken.clear()
            elif kind is MessageStop:
                self.spoken.set()
        told = self._translator.translate(message)
        if self.raw:
            told = list(told)
            if not any(isinstance(body, Raw) for _, body in told):
                self._emit(raw(message, echo=True), self.id, "")
        for parent, body in told:
            if self._first_token is None and isinstance(body, TextDelta | ThinkingDelta):
                self._first_token = self._last_heard
            self._emit(body, self.id, parent)

    async def _watch(self, limit: float, stall: float, wait: Wait) -> WarmlineError | None:
        while not self.end.done():
            now, deadline = self._loop.time(), limit + wait.rested()
            if wait.waiting:
                self._last_heard = now
            if now >= deadline:
                return WarmlineError(Reason.TURN_TIMEOUT, "The turn took longer than its limit.")
            if now >= self._last_heard + stall:
                return WarmlineError(Reason.TURN_STALLED, f"The turn was silent for {stall:g} s.")
            until = min(deadline, self._last_heard + stall)
            await asyncio.wait({self.end}, timeout=until - now)
        return None

    def _since_accepted(self, moment: float | None) -> float | None:
        return None if moment is None else moment - self.accepted_at
