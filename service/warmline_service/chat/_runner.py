"""A turn on a process: getting one, making it the session's, conversing, and trying again."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import replace
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
    required_credential,
    unformed,
    used_between,
    with_earlier,
    withheld,
)
from warmline_service.chat._keys import acceptable_keys
from warmline_service.chat._parking import Parking
from warmline_service.chat._ports import Runtime, UpstreamFault
from warmline_service.chat._recall import Past, Recall
from warmline_service.chat._servers import SessionServers
from warmline_service.chat._tenancy import check_provider
from warmline_service.chat._turn import Bounds, Emit, Parked, Phase, Turn
from warmline_service.config import Level
from warmline_service.errors import Reason, WarmlineError, field_invalid
from warmline_service.pool import Lease, Share, Want
from warmline_service.pool import Start as PoolStart
from warmline_service.sessions import Session, SessionConfig
from warmline_service.sessions.events import (
    DebugLog,
    Ending,
    InterruptOutcome,
    Latency,
    Notice,
    NoticeKind,
    Start,
    TurnStarted,
)
from warmline_service.worker import (
    Binding,
    CliProcess,
    ControlRefused,
    Exit,
    History,
    Result,
    Transcript,
    inject,
)

# The session's own process, a spare of each kind, two that resume and a new one: all but the last
# may be dying, or not take what was said before.
_ATTEMPTS = 6
_UNPAID = (Reason.CREDENTIAL_REJECTED, Reason.CREDENTIAL_NOT_FOUND)
# What a caller without a deadline of its own waits for a process; the pool's own bound is lower.
_NO_DEADLINE = 24 * 3600.0
# What a process that has to go is waited for; the pool sees to it that it goes.
_END_TIMEOUT = 10.0


class ProcessLost(WarmlineError):  # noqa: N818  # named for what happened
    """The process ended before it had become the session's: nothing was run."""


class ProcessGone(ProcessLost):
    """The session's own process ended just before it was to be used."""


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
        self.process: CliProcess | None = None
        self._crashed = False
        self._had_process = False
        self._context = Context(session, runtime, on_gone)
        self._recall = Recall(self._context)
        self._bill = Bill(session, runtime)
        self._session = session
        self._runtime = runtime
        self._emit = emit

    @property
    def hot(self) -> bool:
        """Whether the session's own process waits for the next turn."""
        return self.process is not None and self.process.alive

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
        self._recall = Recall(self._context, pending, turn.message.answered)
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
        model = (self._model_name() or "default") if config.model != before.model else None
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
        await self._hold_to_policy()
        if not self.hot:
            await self._check(turn)
        # Looked up only where a process will be told it: the session's own knows it.
        past = None if self.hot else await self._recall.past()
        if turn.message.answered and not isinstance(past, History):
            raise field_invalid("message.content", "answers a call that the model has not made")
        mcp = await self._servers.ready(turn.id)
        lease = await self._acquire(past, deadline)
        try:
            before = loop.time()
            self.process = lease.process
            told = None
            if not lease.bound:
                told = await self._bind(lease, turn, past)
            await self._servers.prepare(lease.process)
            self._context.begin(turn, going_on=self._desk.deferral is not None)
            lease.begin_turn()
        except BaseException as error:
            alive = lease.process.alive
            # A server that is not there yet is no fault of the process, which may be having it come up.
            waits = isinstance(error, WarmlineError) and error.reason is Reason.MCP_UNAVAILABLE
            lease.release(poisoned=not (waits and lease.bound))
            if isinstance(error, WarmlineError) and not alive:
                raise ProcessLost(error.reason, error.message, metadata=error.metadata) from error
            raise
        spawn = lease.spawn_seconds if lease.start is PoolStart.COLD else None
        bind = loop.time() - before - (told or 0.0)
        start = Start.RESUMED if told is not None else Start(lease.start.value)
        return lease, Latency(start, lease.misses, lease.queue_seconds, spawn, bind, told, mcp)

    async def _hold_to_policy(self) -> None:
        """What is looked at for every turn, also where the session's process is hot. Raises POLICY_DENIED.

        A process ends where what is around it is not what the tenant's has now.
        """
        process, runtime = self.process, self._runtime
        policy = await runtime.quota.policy(self._session.tenant)
        check_provider(policy, runtime.policy.provider.kind)
        if process is None or not self.hot:
            return
        if process.key.sandbox != runtime.policy.other_level_of(policy):
            runtime.pool.forget(self._session.id)
            # Whoever still finds it alive afterwards is given another one all the same.
            await asyncio.wait({process.exited}, timeout=_END_TIMEOUT)

    async def _check(self, turn: Turn) -> None:
        """What the operator allows and has stored may have changed since the session was set up."""
        try:
            await self._runtime.check(self._session.tenant, self._session.config)
        except WarmlineError as error:
            name = error.metadata.get("credential", "")
            self._tell_rejected(error, UpstreamFault(401, None, error, name), turn)
            raise

    async def _acquire(self, past: Past, deadline: float) -> Lease[CliProcess]:
        """A process of a kind that will do; ProcessLost where another way to have the past is left."""
        context = self._context
        policy = await self._runtime.quota.policy(self._session.tenant)
        share = Share(policy.processes, policy.waiting)
        level = self._runtime.policy.other_level_of(policy)
        want = self._want(past, await context.workspace(), await context.directories(), level)
        want = replace(want, share=share)
        try:
            return await self._runtime.pool.acquire(want, deadline)
        except WarmlineError as error:
            if self._recall.not_started(past, error):
                raise ProcessLost(error.reason, error.message, metadata=error.metadata) from error
            raise

    async def _bind(self, lease: Lease[CliProcess], turn: Turn, past: Past) -> float | None:
        """Make a fresh process the session's; gives how long telling it the past took, if it has one."""
        process, session = lease.process, self._session
        if past is None:
            # The session's own may have died since we looked: the past is needed after all.
            past = await self._recall.past()
            if isinstance(past, Transcript):
                raise ProcessGone(Reason.CLI_CRASHED, "The session's process has ended.")
        own = self._runtime.credential(session.tenant, session.config)
        self._runtime.access.bind(process.slot.id, session.tenant, session.id, own)
        self._desk.serve(process)
        files_lost = await self._context.place(process)
        await self._give_inputs(process)
        began = asyncio.get_running_loop().time()
        if isinstance(past, History):
            await self._inject(process, past)
        lease.mark_bound()
        # Its first one came with the lease, which has raised the epoch already.
        session.epoch += self._had_process
        self._had_process = True
        for notice in (files_lost, self._context_lost(turn)):
            if notice is not None:
                self._emit(notice, turn.id, "")
        return None if past is None else asyncio.get_running_loop().time() - began

    async def _give_inputs(self, process: CliProcess) -> None:
        """Bind what the process was not started with."""
        key, prompt = process.key, self._session.config.system_prompt
        model = self._model_name() if key.model is None else None
        prompt = prompt if key.system_prompt is None else None
        try:
            workspace = await self._context.workspace()
            directories = await self._context.directories()
            if key.waits_apart(self._runtime.capabilities):
                workspace = process.slot.work
            policy = await self._runtime.quota.policy(self._session.tenant)
            own = self._session.config.options
            # Said last, and never by the caller: what is forbidden wins over what is allowed.
            never = (*own.disallowed, *policy.forbidden_tools)
            options = replace(own, directories=directories, disallowed=never)
            servers = self._servers.specs
            await process.bind(Binding(model, prompt, workspace, options, servers))
            self._servers.bound(process, servers)
        except ControlRefused as error:
            if error.subtype != "set_model":
                raise
            raise WarmlineError(Reason.MODEL_NOT_FOUND, f"{model}: {error.message}") from error

    async def _inject(self, process: CliProcess, past: History) -> None:
        try:
            await inject(process, past)
        except WarmlineError as error:
            # Dying or not taking it: the next process has it from its start.
            self._recall.not_injected()
            raise ProcessLost(error.reason, error.message, metadata=error.metadata) from error

    def _context_lost(self, turn: Turn) -> Notice | None:
        """Said where the process that begins this turn does not know what was said before."""
        if self._recall.given_up:
            return self._recall.give_up(turn.id)
        if self._session.turns > 1 and not self._runtime.capabilities.mirror:
            text = "The session's process is gone; the model does not know what was said before."
            return Notice(NoticeKind.CONTEXT_LOST, "context_lost", text)
        return None

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
        poisoned = True
        try:
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
            self._tell_rejected(error, fault, turn)
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

    def _tell_rejected(
        self, error: WarmlineError | None, fault: UpstreamFault | None, turn: Turn
    ) -> None:
        """Have the caller see to another credential, unless the one that was refused is the operator's."""
        if error is None or error.reason not in _UNPAID:
            return
        required = required_credential(self._session.config.credential, fault)
        if required is not None:
            self._emit(required, turn.id, "")

    def _want(
        self,
        past: Past,
        workspace: Path | None,
        directories: tuple[Path, ...],
        level: Level | None,
    ) -> Want:
        can, config = self._runtime.capabilities, self._session.config
        keys = acceptable_keys(can, config, self._model_name(), workspace, directories, level)
        if isinstance(past, Transcript):
            keys = (replace(keys[-1], resume=past),)
            if past.pending is not None:
                # It begins with the turn: what is bound to it later comes too late.
                model, prompt = self._model_name(), config.system_prompt
                keys = (replace(keys[0], model=model, system_prompt=prompt),)
        return Want(self._session.tenant, self._session.id, keys)

    def _model_name(self) -> str | None:
        return self._runtime.catalog.cli_name(self._session.config.model)

    def _bounds(self) -> Bounds:
        config, limits = self._session.config, self._runtime.limits
        return Bounds(
            config.turn_timeout or limits.turn_timeout,
            config.stall_timeout or limits.stall_timeout,
            self._runtime.cli.interrupt_timeout,
        )
