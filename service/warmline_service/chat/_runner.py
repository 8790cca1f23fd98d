"""A turn on a process: conversing with it, and trying again with another."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path

from msgspec import structs

from warmline_service.chat._bill import Bill
from warmline_service.chat._context import Context
from warmline_service.chat._deferred import StillParked, parked
from warmline_service.chat._desk import Desk
from warmline_service.chat._endings import (
    completed,
    failed,
    failure_of,
    unformed,
    used_between,
    with_earlier,
    withheld,
)
from warmline_service.chat._parking import Parking
from warmline_service.chat._ports import Runtime
from warmline_service.chat._provision import ProcessLost, Provision
from warmline_service.chat._recall import Recall
from warmline_service.chat._servers import SessionServers
from warmline_service.chat._turn import Bounds, Emit, Parked, Phase, Turn
from warmline_service.errors import Reason, WarmlineError
from warmline_service.pool import Lease
from warmline_service.sessions import Session, SessionConfig
from warmline_service.sessions.events import (
    DebugLog,
    Ending,
    InterruptOutcome,
    Latency,
    TurnStarted,
)
from warmline_service.worker import (
    CliProcess,
    ControlRefused,
    Exit,
    Result,
)

# The session's own process, a spare of each kind, two that resume and a new one: all but the last
# may be dying, or not take what was said before.
_ATTEMPTS = 6


class Runner:
    """Runs a session's turns, one after another; `process` is the one that it has, or had last.

    `on_gone` is called when it has ended, and when its files have been saved.
    """

    def __init__(
        self,
        session: Session,
        runtime: Runtime,
        emit: Emit,
        desk: Desk,
        servers: SessionServers,
        on_gone: Callable[[], None],
    ) -> None:
        self._desk = desk
        self._servers = servers
        self._crashed = False
        self._context = Context(session, runtime, on_gone)
        self._provision = Provision(session, runtime, emit, desk, servers, self._context)
        self._bill = Bill(session, runtime)
        self._session = session
        self._runtime = runtime
        self._emit = emit

    @property
    def process(self) -> CliProcess | None:
        """The session's process, or the one that it had last."""
        return self._provision.process

    @property
    def hot(self) -> bool:
        """Whether the session's own process waits for the next turn."""
        return self._provision.hot

    @property
    def idle(self) -> bool:
        """Whether no process has anything of the session."""
        return not self.hot and not self._context.saving

    @property
    def work(self) -> Path | None:
        """Where the session's own files are, while a process has them."""
        own = self.hot and not self._session.config.workspace
        return self.process.slot.work if own and self.process is not None else None

    async def run(self, turn: Turn) -> Ending:
        """Run a turn; again where its process died before it had taken the message.

        Raises StillParked where it waits for an answer and the service is going away.
        """
        try:
            return await self._through(turn)
        finally:
            self._servers.turn_ended()

    async def _through(self, turn: Turn) -> Ending:
        try:
            ending = None if turn.phase is Phase.PARKED else await self._run(turn)
            while ending is None:
                answered = await self._answered(turn)
                ending = await self._run(turn) if answered else withheld(turn.denied_by)
        except StillParked:
            self._desk.leave()
            raise
        except BaseException:
            self._desk.end()
            raise
        self._desk.end()
        return ending if not turn.used.by_model else with_earlier(ending, turn.used, turn.requests)

    async def _answered(self, turn: Turn) -> bool:
        """Wait until a parked turn can go on; False where it was stopped."""
        deferral = self._desk.deferral
        assert deferral is not None
        while not turn.latched.is_set():
            if deferral.reply is not None:
                turn.phase = Phase.WAITING
                return True
            if self._desk.hurried is not None:
                raise StillParked
            await deferral.woken.wait()
            deferral.woken.clear()
        return False

    async def _run(self, turn: Turn) -> Ending | None:
        """The turn's end, in as many processes as it takes; None where it goes without one."""
        deferral = self._desk.deferral
        pending = None if deferral is None else deferral.pending(self._session.config)
        self._provision.recall(Recall(self._context, pending, turn.message.answered))
        for _ in range(_ATTEMPTS - 1):
            try:
                ending = await self._attempt(turn)
            except ProcessLost:
                continue
            if not (self._crashed and turn.renew()):
                break
        else:
            ending = await self._attempt(turn)
        if self._crashed:
            self._context.keep_lost()
        return ending

    async def change(self, before: SessionConfig) -> None:
        """Tell the session's process what is set up otherwise than before, if there is one.

        Raises MODEL_NOT_FOUND, POLICY_DENIED where the CLI refuses, CLI_CRASHED.
        """
        config = self._session.config
        if self.process is None or not self.hot:
            return
        if config.credential != before.credential:
            credential = self._runtime.credential(self._session.tenant, config)
            self._runtime.access.renew(self.process.slot.id, credential)
        model = (self._provision.model_name or "default") if config.model != before.model else None
        mode = config.permission_mode if config.permission_mode != before.permission_mode else None
        try:
            await self.process.change(model, mode)
        except ControlRefused as error:
            own = error.subtype == "set_model"
            reason = Reason.MODEL_NOT_FOUND if own else Reason.POLICY_DENIED
            raise WarmlineError(reason, error.error) from error

    async def saved(self) -> None:
        """Wait, within a bound, until the files of a process that has ended were saved."""
        if not self.hot:
            await self._context.saved()

    async def stop(self, turn: Turn) -> InterruptOutcome:
        """Stop a turn that runs or waits."""
        if turn.phase is Phase.PARKED and self._desk.deferral is not None:
            turn.latched.set()
            self._desk.deferral.woken.set()
            return InterruptOutcome.STOPPED
        if turn.phase is Phase.WAITING or self.process is None:
            turn.latched.set()
            return InterruptOutcome.LATCHED
        return await turn.interrupt(self.process, self._runtime.cli.interrupt_timeout)

    async def _attempt(self, turn: Turn) -> Ending | None:
        self._crashed = False
        starting = asyncio.create_task(self._provision.begin(turn))
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
        return await self._converse(turn, lease, latency)

    async def _converse(
        self, turn: Turn, lease: Lease[CliProcess], latency: Latency
    ) -> Ending | None:
        """The turn's end in a process; None where it goes on in another."""
        process = lease.process
        access, slot = self._runtime.access, process.slot.id
        try:
            await self._bill.open(slot)
        except BaseException as failure:
            lease.release(poisoned=not isinstance(failure, WarmlineError))
            raise
        if turn.latched.is_set():
            self._bill.close()
            lease.release()
            return withheld(turn.denied_by)
        poisoned = True
        try:
            access.hold(slot, turn.settled)
            before, requests = dict(access.metered(slot)), access.requests(slot)
            self._emit(TurnStarted(latency), turn.id, "")
            end = await self._talk(turn, process)
            await self._tell_debug(turn, process)
            poisoned = not isinstance(end, Result)
            receipt, after = turn.latency(latency), access.metered(slot)
            requests = access.requests(slot) - requests
            if isinstance(end, Parked):
                turn.leave(used_between(before, after), requests)
                self._park(turn, process)
                return None
            self._desk.end()
            fault = access.last_fault(slot)
            error = failure_of(end, fault)
            self._provision.tell_rejected(error, fault, turn)
            if isinstance(end, Exit) or end.failed:
                error = turn.denied_by or error  # An answer that came all the same is one.
            self._crashed = isinstance(end, Exit)
            if error is not None:
                lost = self._crashed and not self._runtime.capabilities.mirror
                bad = failed(error, end, receipt, before, after)
                return structs.replace(bad, context_lost=lost)
            assert isinstance(end, Result)  # An Exit is always a failure.
            ending = completed(end, receipt, before, after, requests)
            error = unformed(ending, self._session.config.output_schema)
            return failed(error, end, receipt, before, after) if error else ending
        finally:
            self._bill.close()
            lease.release(poisoned=poisoned)

    async def _talk(self, turn: Turn, process: CliProcess) -> Result | Exit | Parked:
        """Run the turn in a process, which may be left when it has to wait for long."""
        desk, limits = self._desk, self._runtime.limits
        deferral, desk.deferral = desk.deferral, None
        desk.begin(turn)
        go_on = None if deferral is None else deferral.give
        parking = Parking(desk, self._context, limits.approval_park)
        watching = asyncio.create_task(parking.watch(turn))
        try:
            end = await turn.run(process, self._bounds(), self._context, desk, go_on)
            if isinstance(end, Exit) and not turn.stopping and await parking.survives():
                return Parked()  # It has only waited, and what it waited with is known.
            return end
        finally:
            watching.cancel()
            await asyncio.wait({watching})

    def _park(self, turn: Turn, process: CliProcess) -> None:
        """Leave the process: what it has said is known, and what it would say is not the turn's."""
        process.attach(None)
        process.give_up("was left")
        self._context.keep_lost()
        turn.rest()
        self._emit(parked(), turn.id, "")

    async def _tell_debug(self, turn: Turn, process: CliProcess) -> None:
        """Tell what the process has written to its debug log, if it was asked to."""
        if process.debug_log is not None:
            text, dropped = await asyncio.to_thread(process.debug_log.read)
            if text or dropped:
                self._emit(DebugLog(text, dropped), turn.id, "")

    def _bounds(self) -> Bounds:
        config, limits = self._session.config, self._runtime.limits
        return Bounds(
            config.turn_timeout or limits.turn_timeout,
            config.stall_timeout or limits.stall_timeout,
            self._runtime.cli.interrupt_timeout,
        )
