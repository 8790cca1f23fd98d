"""A session's turns, one after another: each waits within bounds, runs, and comes to its one end."""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque

import structlog

from warmline_service.chat._deferred import StillParked
from warmline_service.chat._drain import Drain
from warmline_service.chat._ports import Runtime
from warmline_service.chat._runner import Runner
from warmline_service.chat._turn import Emit, Phase, Turn
from warmline_service.errors import Reason, WarmlineError
from warmline_service.sessions import Session, UserMessage
from warmline_service.sessions.events import Ending, InterruptOutcome, TurnFailed

_log = structlog.get_logger(__name__)

# A turn whose time has come waits so long for a store that is down, and tries so often, in seconds.
_BEGIN_TIMEOUT = 30.0
_BEGIN_AGAIN = 0.2


class Queue:
    """At most one turn that runs, and those that wait for it.

    Who adds one while it is `quiet` has to see that `work` runs.
    """

    def __init__(
        self, session: Session, runtime: Runtime, runner: Runner, emit: Emit, drain: Drain
    ) -> None:
        self._session = session
        self._runtime = runtime
        self._runner = runner
        self._emit = emit
        self._drain = drain
        self._waiting: deque[Turn] = deque()
        self._running: Turn | None = None
        self._quiet = asyncio.Event()
        self._quiet.set()

    def __len__(self) -> int:
        """How many turns run and wait."""
        return len(self._waiting) + (self._running is not None)

    @property
    def quiet(self) -> bool:
        """Whether no turn runs or waits."""
        return self._quiet.is_set()

    @property
    def running(self) -> Turn | None:
        """The turn that runs, once it is stored."""
        turn = self._running
        return turn if turn is not None and turn.stored else None

    async def until_quiet(self) -> None:
        """Wait until no turn runs or waits."""
        await self._quiet.wait()

    def check(self, message: UserMessage) -> None:
        """Raise DRAINING or QUEUE_FULL where a message cannot be taken."""
        limits = self._runtime.limits
        weight = sum(each.message.size for each in self._waiting) + message.size
        self._drain.check()
        if len(self) > limits.queued_messages or (self._waiting and weight > limits.queued_bytes):
            raise WarmlineError(
                Reason.QUEUE_FULL,
                "Too many messages of this session are waiting already.",
                metadata={
                    "limit": str(limits.queued_messages),
                    "limitBytes": str(limits.queued_bytes),
                },
                retry_after=5.0,
            )

    def add(self, turn: Turn) -> bool:
        """Add a turn behind the others; gives whether it was quiet until now, so `work` must begin."""
        self._waiting.append(turn)
        was_quiet = self.quiet
        self._quiet.clear()
        return was_quiet

    async def work(self) -> None:
        """Run one turn after another until none is left."""
        try:
            while self._waiting:
                self._running = self._waiting.popleft()
                self._running.raw = self._runtime.journal.feed(self._session.id).raw
                ending = await self._end_of(self._running)
                turn, self._running = self._running, None
                self._emit_end(ending, turn)
        except StillParked:
            self._running = None  # Its end is for another service to tell.
            self._give_up()
        except asyncio.CancelledError:
            self._give_up()
            raise
        finally:
            self._quiet.set()

    async def interrupt(self) -> tuple[InterruptOutcome, str]:
        """Stop the turn that runs, or is the next to run; what happened, and the turn's id."""
        turn = self._running or (self._waiting[0] if self._waiting else None)
        if turn is None:
            return InterruptOutcome.NOTHING_RUNNING, ""
        await turn.known()
        if turn is not self.running and turn not in self._waiting:
            return InterruptOutcome.NOTHING_RUNNING, ""
        return await self._runner.stop(turn), turn.id

    async def stop_all(self) -> None:
        """Stop the running turn; those that wait end without having run."""
        for turn in self._waiting:
            turn.latched.set()
        if self._running is not None:
            await self._runner.stop(self._running)

    async def cut(self, error: WarmlineError, *, spare_parked: bool = False) -> None:
        """End what runs and what waits with this error; a turn that no process has, unless it is spared."""
        while self._waiting:
            self._emit_end(TurnFailed(error), self._waiting.popleft())
        turn = self._running
        if turn is not None and spare_parked and turn.phase is Phase.PARKED:
            return
        if turn is not None:
            turn.denied_by = turn.denied_by or error
            await self._runner.stop(turn)
        await self.until_quiet()

    def _give_up(self) -> None:
        """The service stops without waiting: what was accepted still has its end."""
        error = self._drain.error or WarmlineError(Reason.DRAINING, "The service has stopped.")
        turns = [self._running] if self._running is not None else []
        for turn in (*turns, *self._waiting):
            self._emit_end(TurnFailed(error), turn)
        self._running = None
        self._waiting.clear()

    async def _end_of(self, turn: Turn) -> Ending:
        """Run a turn to its one end, whatever happens."""
        try:
            if turn.waits:
                await self._begin(turn)
            return await self._runner.run(turn)
        except WarmlineError as error:
            return TurnFailed(error)
        except StillParked:
            raise
        except Exception:  # noqa: BLE001  # a turn ends once, whatever happens
            error_id = turn.id
            _log.exception("turn failed by a fault of the service", error_id=error_id)
            fault = WarmlineError(
                Reason.INTERNAL, "Internal error.", metadata={"errorId": error_id}
            )
            return TurnFailed(fault)
        finally:
            turn.phase = Phase.ENDED

    async def _begin(self, turn: Turn) -> None:
        """Store that a turn begins which had to wait, before it does anything."""
        loop = asyncio.get_running_loop()
        until = loop.time() + _BEGIN_TIMEOUT
        while not turn.latched.is_set():
            try:
                await self._runtime.store.begin(turn.id)
            except WarmlineError:
                if loop.time() > until:
                    raise
            else:
                return
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_BEGIN_AGAIN):
                    await turn.latched.wait()

    def _emit_end(self, ending: Ending, turn: Turn) -> None:
        turn.leave_place()
        if isinstance(ending, TurnFailed):
            ending = TurnFailed(
                ending.error, ending.context_lost, ending.usage, ending.latency, turn.message.key
            )
        self._emit(ending, turn.id, "")
