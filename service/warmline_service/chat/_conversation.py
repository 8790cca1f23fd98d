"""One session at work: its queue of messages, its stream, and one turn after another."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable, Coroutine
from typing import Any

import structlog

from warmline_service.chat._endings import completed, failed, failure_of, withheld
from warmline_service.chat._keys import acceptable_keys
from warmline_service.chat._outbox import Outbox
from warmline_service.chat._ports import Runtime
from warmline_service.chat._turn import Bounds, Phase, Turn
from warmline_service.chat.events import (
    Body,
    Detail,
    Ending,
    Event,
    InterruptOutcome,
    InterruptResult,
    Latency,
    Notice,
    NoticeKind,
    ServerDraining,
    SessionOpened,
    TurnFailed,
    TurnQueued,
    TurnStarted,
)
from warmline_service.errors import Reason, WarmlineError
from warmline_service.pool import Lease, Start, Want
from warmline_service.sessions import Session
from warmline_service.worker import Binding, CliProcess, ControlRefused, Exit, Result

_log = structlog.get_logger(__name__)

# The session's own process, a spare of each kind, and a new one: all but the last may be dying.
_ATTEMPTS = 4
# What a caller without a deadline of its own waits for a process; the pool's own bound is lower.
_NO_DEADLINE = 24 * 3600.0


class ProcessLost(WarmlineError):  # noqa: N818  # named for what happened
    """The process ended before it had become the session's: nothing was run."""


class Conversation:
    """A session with at most one stream attached and at most one turn running."""

    def __init__(
        self,
        session: Session,
        runtime: Runtime,
        spawn: Callable[[Coroutine[Any, Any, None]], asyncio.Task[None]],
    ) -> None:
        self.session = session
        self._runtime = runtime
        self._spawn = spawn
        self._outbox: Outbox | None = None
        self._queue: deque[Turn] = deque()
        self._turn: Turn | None = None
        self._process: CliProcess | None = None
        self._quiet = asyncio.Event()
        self._quiet.set()
        self._draining: WarmlineError | None = None
        self._drain_began = asyncio.Event()

    def attach(self, detail: Detail) -> Outbox:
        """Become the session's one stream. Raises SESSION_BUSY while there is another."""
        if self._outbox is not None and self._outbox.overflowed.is_set():
            self.detach(self._outbox)  # Its stream is stuck in a write.
        if self._outbox is not None:
            raise WarmlineError(
                Reason.SESSION_BUSY, "Another stream is attached to this session.", retry_after=1.0
            )
        self._outbox = Outbox(detail, self._runtime.limits.outbox_bytes)
        self.session.busy += 1
        model = self._runtime.catalog.resolve(self.session.config.model)
        hot = self._process is not None and self._process.alive
        version = self._runtime.capabilities.version
        start = Start.HOT if hot else None
        session = self.session
        self._emit(SessionOpened(session.id, start, model.id, version, session.seq))
        return self._outbox

    def detach(self, outbox: Outbox) -> None:
        """Give the stream's place up; a turn that runs goes on."""
        outbox.close()
        if self._outbox is outbox:
            self._outbox = None
            self.session.busy -= 1

    def submit(self, text: str, deadline: float | None) -> str:
        """Accept a message: its turn begins when those before it have ended. Gives the turn's id.

        `deadline` is loop time and bounds the wait for a process. A message that cannot wait ends at
        once in `turn_failed`: QUEUE_FULL or DRAINING.
        """
        turn = Turn(text, lambda body, parent: self._emit(body, turn.id, parent), deadline)
        waiting = len(self._queue) + (self._turn is not None)
        weight = sum(len(each.text) for each in self._queue) + len(text)
        limits = self._runtime.limits
        limit = limits.queued_messages
        if self._draining is not None:
            self._emit(TurnFailed(self._draining), turn.id)
        elif waiting > limit or (self._queue and weight > limits.queued_bytes):
            full = WarmlineError(
                Reason.QUEUE_FULL,
                "Too many messages of this session are waiting already.",
                metadata={"limit": str(limit), "limitBytes": str(limits.queued_bytes)},
                retry_after=5.0,
            )
            self._emit(TurnFailed(full), turn.id)
        else:
            self._accept(turn, waiting)
        return turn.id

    async def interrupt(self) -> None:
        """Stop the running turn; what happened is told as an event."""
        asked_by = self._outbox
        turn = self._turn or (self._queue[0] if self._queue else None)
        outcome = InterruptOutcome.NOTHING_RUNNING
        if turn is not None:
            outcome = await self._stop(turn)
        if self._outbox is asked_by:
            self._emit(InterruptResult(outcome), turn.id if turn else "")

    async def quiet(self) -> None:
        """Wait until no turn runs or waits."""
        await self._quiet.wait()

    def begin_drain(self, error: WarmlineError) -> None:
        """Refuse further messages with this error and tell the stream."""
        if self._draining is None:
            self._draining = error
            self._drain_began.set()
            self._emit(ServerDraining(error.retry_after or 1.0))

    async def cut(self, error: WarmlineError) -> None:
        """End what runs and what waits with this error."""
        while self._queue:
            self._emit(TurnFailed(error), self._queue.popleft().id)
        turn = self._turn
        if turn is not None:
            turn.denied_by = turn.denied_by or error
            await self._stop(turn)
        await self.quiet()

    async def drained(self) -> WarmlineError:
        """Wait until the service drains and this session has nothing more to do; says why."""
        await self._drain_began.wait()
        await self.quiet()
        assert self._draining is not None
        return self._draining

    def _accept(self, turn: Turn, waiting: int) -> None:
        self._queue.append(turn)
        self._emit(TurnQueued(waiting), turn.id)
        if self._quiet.is_set():
            self._quiet.clear()
            self.session.busy += 1
            self._spawn(self._work())

    async def _work(self) -> None:
        try:
            while self._queue:
                self._turn = self._queue.popleft()
                self._turn.detail = self._outbox.detail if self._outbox else Detail.BLOCKS
                ending = await self._end_of(self._turn)
                turn, self._turn = self._turn, None
                self._emit(ending, turn.id)
        except asyncio.CancelledError:
            self._give_up()
            raise
        finally:
            self.session.busy -= 1
            self._quiet.set()

    def _give_up(self) -> None:
        """The service stops without waiting: what was accepted still has its end."""
        error = self._draining or WarmlineError(Reason.DRAINING, "The service has stopped.")
        turns = [self._turn] if self._turn is not None else []
        for turn in (*turns, *self._queue):
            self._emit(TurnFailed(error), turn.id)
        self._turn = None
        self._queue.clear()

    async def _end_of(self, turn: Turn) -> Ending:
        """Run a turn to its one end, whatever happens."""
        try:
            return await self._run(turn)
        except WarmlineError as error:
            return TurnFailed(error)
        except Exception:  # noqa: BLE001  # a turn ends once, whatever happens
            error_id = turn.id
            _log.exception("turn failed by a fault of the service", error_id=error_id)
            fault = WarmlineError(
                Reason.INTERNAL, "Internal error.", metadata={"errorId": error_id}
            )
            return TurnFailed(fault)
        finally:
            turn.phase = Phase.ENDED

    async def _run(self, turn: Turn) -> Ending:
        """Run a turn; again where its process died before it had taken the message."""
        for _ in range(_ATTEMPTS - 1):
            try:
                ending = await self._attempt(turn)
            except ProcessLost:
                continue
            if not (isinstance(ending, TurnFailed) and ending.context_lost and turn.renew()):
                return ending
        return await self._attempt(turn)

    async def _attempt(self, turn: Turn) -> Ending:
        starting = asyncio.create_task(self._begin(turn))
        latched = asyncio.create_task(turn.latched.wait())
        try:
            await asyncio.wait({starting, latched}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            latched.cancel()
            if not starting.done():
                starting.cancel()
                await asyncio.wait({starting})
        if starting.cancelled():
            return withheld(turn.denied_by)
        lease, latency = starting.result()
        if turn.latched.is_set():
            lease.release()
            return withheld(turn.denied_by)
        return await self._converse(turn, lease, latency)

    async def _begin(self, turn: Turn) -> tuple[Lease[CliProcess], Latency]:
        """Get a process for the turn and make it this session's."""
        loop = asyncio.get_running_loop()
        deadline = turn.deadline or loop.time() + _NO_DEADLINE
        lease = await self._runtime.pool.acquire(self._want(), deadline)
        try:
            before = loop.time()
            self._process = lease.process
            if not lease.bound:
                await self._bind(lease, turn)
            lease.begin_turn()
        except BaseException as error:
            alive = lease.process.alive
            lease.release(poisoned=True)
            if isinstance(error, WarmlineError) and not alive:
                raise ProcessLost(error.reason, error.message, metadata=error.metadata) from error
            raise
        spawn = lease.spawn_seconds if lease.start is Start.COLD else None
        bind = loop.time() - before
        return lease, Latency(lease.start, lease.misses, lease.queue_seconds, spawn, bind)

    async def _bind(self, lease: Lease[CliProcess], turn: Turn) -> None:
        process, session = lease.process, self.session
        self._runtime.access.bind(process.slot.id, session.tenant, session.id)
        key, prompt = process.key, session.config.system_prompt
        model = self._model_name() if key.model is None else None
        try:
            await process.bind(Binding(model, prompt if key.system_prompt is None else None))
        except ControlRefused as error:
            if error.subtype != "set_model":
                raise
            raise WarmlineError(Reason.MODEL_NOT_FOUND, f"{model}: {error.message}") from error
        lease.mark_bound()
        session.epoch += 1
        if session.epoch > 1:
            self._emit(
                Notice(
                    NoticeKind.CONTEXT_LOST,
                    "context_lost",
                    "The session's process is gone; the model no longer knows what was said before.",
                ),
                turn.id,
            )

    async def _converse(self, turn: Turn, lease: Lease[CliProcess], latency: Latency) -> Ending:
        process = lease.process
        access, slot = self._runtime.access, process.slot.id
        poisoned = True
        try:
            before, requests = dict(access.metered(slot)), access.requests(slot)
            self._emit(TurnStarted(latency), turn.id)
            end = await turn.run(process, self._bounds())
            poisoned = not isinstance(end, Result)
            receipt, after = turn.latency(latency), access.metered(slot)
            error = failure_of(end, access.last_fault(slot))
            if isinstance(end, Exit) or end.failed:
                error = turn.denied_by or error  # An answer that came all the same is one.
            if error is not None:
                return failed(error, end, receipt, before, after)
            assert isinstance(end, Result)  # An Exit is always a failure.
            return completed(end, receipt, before, after, access.requests(slot) - requests)
        finally:
            lease.release(poisoned=poisoned)

    async def _stop(self, turn: Turn) -> InterruptOutcome:
        process = self._process
        if turn.phase is Phase.WAITING or process is None:
            turn.latched.set()
            return InterruptOutcome.LATCHED
        return await turn.interrupt(process, self._runtime.cli.interrupt_timeout)

    def _want(self) -> Want:
        config = self.session.config
        keys = acceptable_keys(self._runtime.capabilities, self._model_name(), config.system_prompt)
        return Want(self.session.tenant, self.session.id, keys)

    def _model_name(self) -> str | None:
        return self._runtime.catalog.cli_name(self.session.config.model)

    def _bounds(self) -> Bounds:
        config, limits = self.session.config, self._runtime.limits
        return Bounds(
            config.turn_timeout or limits.turn_timeout,
            config.stall_timeout or limits.stall_timeout,
            self._runtime.cli.interrupt_timeout,
        )

    def _emit(self, body: Body, turn_id: str = "", parent: str = "") -> None:
        session = self.session
        seq = session.next_seq()
        if self._outbox is not None:
            self._outbox.put(
                Event(session.id, turn_id, max(session.epoch, 1), seq, time.time(), body, parent)
            )
