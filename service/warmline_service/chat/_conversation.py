"""One session at work: its stream, and its queue of messages."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Coroutine
from functools import partial
from pathlib import Path
from typing import Any, Protocol, TypeVar

from warmline_service.chat._acceptance import Acceptance, refuse
from warmline_service.chat._answers import Allow, Change, Deny, ToolAnswer
from warmline_service.chat._desk import Desk
from warmline_service.chat._drain import Drain
from warmline_service.chat._emitter import Emitter
from warmline_service.chat._endings import abandoned
from warmline_service.chat._naming import Naming
from warmline_service.chat._ports import Runtime
from warmline_service.chat._queue import Queue
from warmline_service.chat._runner import Runner
from warmline_service.chat._servers import SessionServers
from warmline_service.chat._setup import Setup
from warmline_service.chat._stream import Stream, opened_position, wanted
from warmline_service.chat._turn import Phase, Turn
from warmline_service.chat._witness import Witness
from warmline_service.errors import Reason, WarmlineError, field_invalid
from warmline_service.quota import slow_down
from warmline_service.sessions import Session, UserMessage
from warmline_service.sessions.events import (
    ApprovalRequested,
    Checkpointed,
    Detail,
    InterruptOutcome,
    InterruptResult,
    SessionOpened,
    Start,
    TurnQueued,
)
from warmline_service.store import Claimed, TurnRow

T = TypeVar("T")


class Spawn(Protocol):
    """Starts a task that somebody else looks after."""

    def __call__(self, work: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
        """The task."""
        ...


class Conversation:
    """A session with at most one stream that writes and at most one turn running.

    `on_idle` is called when it may have nothing more to do.
    """

    def __init__(
        self,
        session: Session,
        runtime: Runtime,
        spawn: Spawn,
        on_idle: Callable[[Conversation], None],
        drain: Drain,
        naming: Naming,
    ) -> None:
        self.session = session
        self._runtime = runtime
        self._spawn = spawn
        self._on_idle = on_idle
        self._drain = drain
        self.naming = naming
        self._witness = Witness(session, runtime.audit)
        self._emitter = Emitter(session, runtime.journal, self._witness)
        can, limits, emit = runtime.capabilities, runtime.limits, self._emitter.emit
        self._servers = SessionServers(session, runtime, emit)
        self._desk = Desk(session, limits, can, emit, self._keep_setup, self._servers)
        self._runner = Runner(
            session, runtime, emit, self._desk, self._servers, lambda: on_idle(self)
        )
        self._setup = Setup(session, runtime, emit, self._runner, self._servers)
        self._queue = Queue(session, runtime, self._runner, emit, drain)
        self._acceptance = Acceptance(session, runtime, naming, self._queue)
        self._stream: Stream | None = None
        self._accepting = asyncio.Lock()
        self._lost: WarmlineError | None = None

    @property
    def idle(self) -> bool:
        """Whether nobody has a use for it at the moment: no stream, no turn, no process."""
        busy = self._accepting.locked() or self._setup.changing or self._stream is not None
        return not busy and self._queue.quiet and self._runner.idle

    @property
    def hot(self) -> bool:
        """Whether a process waits for its next turn."""
        return self._runner.hot

    @property
    def work(self) -> Path | None:
        """Where the session's own files are, while a process has them."""
        return self._runner.work

    @property
    def deferred(self) -> bool:
        """Whether its turn waits for an approval, and no process with it."""
        return self._queue.running is not None and self._queue.running.phase is Phase.PARKED

    @property
    def approvals(self) -> tuple[ApprovalRequested, ...]:
        """What waits for a yes, the oldest first."""
        return self._desk.approvals

    @property
    def running(self) -> bool:
        """Whether a turn runs or waits."""
        return not self._queue.quiet

    def attach(
        self,
        detail: Detail,
        *,
        after: int | None = None,
        takeover: bool = False,
        interrupt_when_lost: bool = False,
        continued: bool = False,
    ) -> Stream:
        """Become the session's one stream; it is told what happened after a seq, or from now on.

        Raises SESSION_BUSY while there is another, unless it is to be taken over; FIELD_INVALID for a
        cursor that the session has not come to.
        """
        session = self.session
        if self._lost is not None:
            raise self._lost
        if after is not None and after > session.seq:
            raise field_invalid("open.after.seq", f"the session's last event is {session.seq}")
        if self._stream is not None:
            if not takeover:
                raise WarmlineError(
                    Reason.SESSION_BUSY,
                    "Another stream is attached to this session; `takeover` takes its place.",
                    retry_after=1.0,
                )
            self._stream.silence()
        if not self.running:
            # Connected to by the time that the first message comes, if it is not too quick.
            self._servers.open()
        opened = self._opened(continued=continued)
        cursor = session.seq if after is None else after
        subscription = self._runtime.journal.subscribe(
            (session.tenant, session.id), cursor, wanted(detail), raw=detail is Detail.RAW
        )
        self._stream = Stream(
            subscription,
            session.id,
            lambda: opened_position(session)[0],
            interrupt_when_lost=interrupt_when_lost,
        )
        self._stream.tell(opened)
        if self._drain.error is not None:
            self.tell_drain(self._drain.error)
        return self._stream

    def detach(self, stream: Stream, *, lost: bool = False) -> None:
        """Give the stream's place up; a turn that runs goes on, unless the stream wanted otherwise."""
        live = self._lost is None
        self._runtime.journal.unsubscribe(self.session.id, stream.subscription, live=live)
        if self._stream is stream:
            self._stream = None
            if lost and stream.interrupt_when_lost and self.running:
                self._spawn(self._queue.stop_all())
        self._on_idle(self)

    async def submit(
        self,
        stream: Stream,
        message: UserMessage,
        deadline: float | None,
        *,
        counted: bool = False,
    ) -> str:
        """Accept a message: its turn begins when those before it have ended. Gives the turn's id.

        One that was sent before is attached to its turn. `deadline` is loop time and bounds the wait
        for a process; `counted`: the message is a request of its own. One that cannot wait ends at once
        in `turn_failed`: QUEUE_FULL, RATE_LIMITED, QUOTA_EXCEEDED, BUDGET_EXCEEDED, DRAINING,
        STORAGE_UNAVAILABLE, IDEMPOTENCY_CONFLICT. Raises SESSION_BUSY.
        """
        stream.may_speak()
        # Not the caller's own task: whoever goes away now leaves a message behind that is run, or none.
        turn = Turn(message, self._emitter.emit, deadline)
        accepting = self._spawn(self._submit(stream, turn, counted=counted))
        return await asyncio.shield(accepting)

    async def _submit(self, stream: Stream, turn: Turn, *, counted: bool) -> str:
        try:
            async with self._accepting:
                return await self._admit(stream, turn, counted=counted)
        finally:
            # Whoever had no more use for it meanwhile was told that this is under way.
            self._on_idle(self)

    async def _admit(self, stream: Stream, turn: Turn, *, counted: bool) -> str:
        try:
            claimed = await self._claim(turn, counted=counted)
            if claimed.turn_id == turn.id:
                self._accept(turn)
            else:
                turn.leave_place()
                await self._acceptance.attach(stream, claimed, turn.message.key)
        except WarmlineError as error:
            refuse(stream, turn, error)
            await slow_down(error)
            return turn.id
        return claimed.turn_id

    async def interrupt(self, stream: Stream | None) -> tuple[InterruptOutcome, str]:
        """Stop the running turn; what happened is told to who asked, and given with the turn's id."""
        if stream is not None:
            stream.may_speak()
        outcome, turn_id = await self._queue.interrupt()
        if stream is not None:
            stream.tell(InterruptResult(outcome), turn_id)
        return outcome, turn_id

    def decide(self, approval_id: str, decision: Allow | Deny, stream: Stream | None) -> None:
        """Answer an approval, of a stream or of nobody's; raises APPROVAL_NOT_FOUND, SESSION_BUSY."""
        if stream is not None:
            stream.may_speak()
        self._witness.decides(approval_id, decision)
        self._desk.decide(approval_id, decision)

    def settle(self, call_id: str, answer: ToolAnswer, stream: Stream) -> None:
        """Answer a call of the caller's tool; it is told where nobody waits for it any more."""
        stream.may_speak()
        if self.naming.owes:
            self._spawn(self.naming.settle())
        if not self._desk.settle(call_id, answer):
            text = "Nobody waits for the result of this call."
            stream.warn("client_call_unknown", text, callId=call_id)

    async def checkpoint(self, stream: Stream, names: Collection[str]) -> None:
        """Let the session be found again by names. Raises SESSION_BUSY, STORAGE_UNAVAILABLE."""
        stream.may_speak()
        await self.naming.give(names)
        stream.tell(Checkpointed(tuple(names)))

    async def update(self, stream: Stream, change: Change) -> None:
        """Set the session up differently. The stream is told how it went."""
        stream.may_speak()
        try:
            await self._setup.change(change, lambda: self.running)
        except WarmlineError as error:
            self._witness.refused(error)
            stream.warn("update_refused", error.message)
        finally:
            self._on_idle(self)

    def close(self) -> None:
        """It is at work here no more."""
        self.naming.close()
        self._servers.close()

    async def saved(self) -> None:
        """Wait, within a bound, until the store says what is here: the files, and by which names."""
        await self._runner.saved()
        await self.naming.settle()

    async def quiet(self) -> None:
        """Wait until no turn runs or waits."""
        await self._queue.until_quiet()

    def tell_drain(self, error: WarmlineError) -> None:
        """Tell the stream that the service is going away; a turn that only waits is left to the next one."""
        self._desk.hurry(error)
        if self._stream is not None:
            self._stream.drain(error.retry_after or 1.0, self.session.stored)

    async def cut(self, error: WarmlineError, *, spare_parked: bool = False) -> None:
        """End what runs and what waits with this error; a turn that no process has, unless it is spared."""
        await self._queue.cut(error, spare_parked=spare_parked)

    def fail_stream(self, error: WarmlineError) -> None:
        """End the stream; the session goes on."""
        if self._stream is not None:
            self._stream.subscription.fail(error)

    async def lose(self, error: WarmlineError) -> None:
        """The session is another's: stop without a word, since nothing of it would be stored."""
        self._lost = error
        self._emitter.fall_silent()
        self.fail_stream(error)
        self._runtime.journal.discard(self.session)
        self._runtime.pool.forget(self.session.id)
        await self.cut(error)

    def take_up(self, row: TurnRow, asked: ApprovalRequested) -> None:
        """Go on waiting with a turn that an earlier service has left parked."""
        turn = Turn.left(row.id, row.key, self._emitter.emit)
        self._witness.asked(asked, turn.id)
        self._desk.restore(turn, asked)
        self._add(turn)

    def fail_turns(self, turns: list[TurnRow]) -> None:
        """End the turns that an earlier service left without an end."""
        for row in turns:
            self._emitter.emit(abandoned(row), row.id)

    async def _claim(self, turn: Turn, *, counted: bool) -> Claimed:
        """As the acceptance does; a turn that is not to be has ended, if it had begun."""
        mine = False
        try:
            begin = partial(self._begin_ahead, turn)
            claimed = await self._acceptance.claim(turn, begin, counted=counted)
            if self._lost is not None:
                raise self._lost
            mine = claimed.turn_id == turn.id
        finally:
            if not mine:
                turn.withdraw()
                if self._emitter.held:
                    await self._queue.until_quiet()
                    self._emitter.go_on(without=turn.id)
        return claimed

    def _begin_ahead(self, turn: Turn) -> None:
        """Let the session's process have the message while it is being stored, if nothing comes of it before.

        What may act on it without the model has it later: the CLI's commands, and hooks. A message that
        was refused costs the process, so none is risked where that is likely.
        """
        acts = turn.message.interpret or self.session.config.may_have_hooks
        risky = self._acceptance.knows(turn.message.key) or not self._runtime.store.works
        if self._queue.quiet and self._runner.hot and not acts and not risky:
            self._emitter.hold()
            self._add(turn)

    def _accept(self, turn: Turn) -> None:
        self.session.turns += 1
        self._witness.accepted(turn.id, turn.message)
        ahead = self._emitter.held
        before = 0 if ahead else len(self._queue)
        turn.settled.set_result(True)
        queued = TurnQueued(before, turn.message.key, turn.message.shown)
        self._emitter.go_on((queued, turn.id))
        if not ahead:
            self._add(turn)

    def _add(self, turn: Turn) -> None:
        if self._queue.add(turn):
            self._spawn(self._work())

    async def _work(self) -> None:
        try:
            await self._queue.work()
        finally:
            self._on_idle(self)

    def _opened(self, *, continued: bool) -> SessionOpened:
        session, runtime = self.session, self._runtime
        epoch, seq = opened_position(session)
        running = self._queue.running
        return SessionOpened(
            session.id,
            Start.HOT if self._runner.hot else None,
            runtime.catalog.resolve(session.config.model).id,
            runtime.capabilities.version,
            seq,
            epoch,
            running.id if running else "",
            self._desk.approvals,
            self._desk.calls,
            self._servers.statuses,
            continued,
        )

    def _keep_setup(self) -> None:
        self._setup.tell_mode()
        self._spawn(self._store_setup())

    async def _store_setup(self) -> None:
        try:
            await self._setup.store()
        finally:
            self._on_idle(self)
