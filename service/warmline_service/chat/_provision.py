"""A process for a turn: had from the pool, held to what the tenant may have, and made the session's."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from pathlib import Path

from warmline_service.chat._context import Context
from warmline_service.chat._desk import Desk
from warmline_service.chat._endings import required_credential
from warmline_service.chat._keys import acceptable_keys
from warmline_service.chat._ports import Runtime, UpstreamFault
from warmline_service.chat._recall import Past, Recall
from warmline_service.chat._servers import SessionServers
from warmline_service.chat._tenancy import check_provider
from warmline_service.chat._turn import Emit, Turn
from warmline_service.config import Level
from warmline_service.errors import Reason, WarmlineError, field_invalid
from warmline_service.pool import Lease, Share, Want
from warmline_service.pool import Start as PoolStart
from warmline_service.sessions import Session
from warmline_service.sessions.events import Latency, Notice, NoticeKind, Start
from warmline_service.tenants import group_of
from warmline_service.worker import Binding, CliProcess, ControlRefused, History, Transcript, inject

_UNPAID = (Reason.CREDENTIAL_REJECTED, Reason.CREDENTIAL_NOT_FOUND)
# What a caller without a deadline of its own waits for a process; the pool's own bound is lower.
_NO_DEADLINE = 24 * 3600.0
# What a process that has to go is waited for; the pool sees to it that it goes.
_END_TIMEOUT = 10.0


class ProcessLost(WarmlineError):  # noqa: N818  # named for what happened
    """The process ended before it had become the session's: nothing was run."""


class ProcessGone(ProcessLost):
    """The session's own process ended just before it was to be used."""


class Provision:
    """Provides a session's turns with processes; `process` is the one that it has, or had last."""

    def __init__(
        self,
        session: Session,
        runtime: Runtime,
        emit: Emit,
        desk: Desk,
        servers: SessionServers,
        context: Context,
    ) -> None:
        self._session = session
        self._runtime = runtime
        self._emit = emit
        self._desk = desk
        self._servers = servers
        self._context = context
        self._recall = Recall(context)
        self._had_process = False
        self.process: CliProcess | None = None

    @property
    def hot(self) -> bool:
        """Whether the session's own process waits for the next turn."""
        return self.process is not None and self.process.alive

    @property
    def model_name(self) -> str | None:
        """What the CLI calls the session's model; None for its default."""
        return self._runtime.catalog.cli_name(self._session.config.model)

    def recall(self, recall: Recall) -> None:
        """From now on processes are told the past in this way: a turn begins, with attempts of its own."""
        self._recall = recall

    async def begin(self, turn: Turn) -> tuple[Lease[CliProcess], Latency]:
        """Get a process for the turn and make it this session's."""
        loop = asyncio.get_running_loop()
        deadline = turn.deadline or loop.time() + _NO_DEADLINE
        await self._hold_to_policy()
        if not self.hot:
            # Only a process of its own is risked for a turn that may not be stored.
            await turn.known()
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
            self.tell_rejected(error, UpstreamFault(401, None, error, name), turn)
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
        await turn.known()
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
        model = self.model_name if key.model is None else None
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

    def tell_rejected(
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
        can, config, tenant = self._runtime.capabilities, self._session.config, self._session.tenant
        keys = acceptable_keys(can, config, self.model_name, workspace, directories, level)
        if isinstance(past, Transcript):
            keys = (replace(keys[-1], resume=past),)
            if past.pending is not None:
                # It begins with the turn: what is bound to it later comes too late.
                model, prompt = self.model_name, config.system_prompt
                keys = (replace(keys[0], model=model, system_prompt=prompt),)
        return Want(tenant, self._session.id, keys, group=group_of(tenant))
