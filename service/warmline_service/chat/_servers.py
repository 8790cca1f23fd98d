"""A session's MCP servers: lent by the broker, told to its process, and asked for it."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Coroutine, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import structlog

from warmline_service.chat._commands import look_at_commands
from warmline_service.chat._forwards import Forwards
from warmline_service.chat._ports import Runtime
from warmline_service.chat._turn import Emit
from warmline_service.errors import Reason, WarmlineError
from warmline_service.mcp import Lease, ServerState, State, Target
from warmline_service.sessions import CLIENT_SERVER, McpServer, Session
from warmline_service.sessions.events import ServerStatus
from warmline_service.vault import SealBroken
from warmline_service.worker import CliProcess, Command, ControlRefused, ControlRequest, Servers

_log = structlog.get_logger(__name__)

_CHANGED = {"jsonrpc": "2.0", "method": "notifications/tools/list_changed"}


@dataclass
class _Use:
    """One server of the session's: by a lease, or by a command of the CLI's, or not to be had at all.

    `own` is the state where there is no lease. `secrets` are the server's, opened; None where they stay shut.
    """

    server: McpServer
    secrets: Mapping[str, str] | None
    own: ServerState
    lease: Lease | None = None
    command: Command | None = None

    @property
    def state(self) -> ServerState:
        return self.own if self.lease is None else self.lease.state

    @property
    def had(self) -> bool:
        """Whether there is something that may become connected."""
        return self.lease is not None or self.command is not None


class SessionServers:
    """What a session's turns have of MCP: ready before each, bound to its process, told of as events."""

    def __init__(self, session: Session, runtime: Runtime, emit: Emit) -> None:
        self._session = session
        self._runtime = runtime
        self._emit = emit
        self._uses: dict[str, _Use] = {}
        self._told: dict[str, ServerStatus] = {}
        self._forwards = Forwards()
        self._turn_id = ""
        self._told_in_turn: set[str] = set()
        self._process: CliProcess | None = None
        self._bound: dict[str, Command | None] = {}
        # What its process has seen of each, or will see.
        self._offered: dict[str, Sequence[Mapping[str, Any]]] = {}
        self._changed = asyncio.Event()
        self._closed = False
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def statuses(self) -> tuple[ServerStatus, ...]:
        """How each of them is."""
        return tuple(_status(name, use.state) for name, use in self._uses.items())

    def open(self) -> None:
        """Have just the servers that the session is set up with: those by address are connected to."""
        if self._closed:
            return
        wanted = self._session.config.mcp_servers
        for name in [each for each in self._uses if each not in wanted]:
            self._drop(name)
        for name, server in wanted.items():
            secrets, known = self._opened(server), self._uses.get(name)
            if known is not None and known.had and _same(known, server, secrets):
                known.server = server
                continue
            if known is not None:
                self._drop(name)
            self._uses[name] = self._use(name, server, secrets)

    def close(self) -> None:
        """Have no more use for any of them, whatever still runs."""
        self._closed = True
        for name in list(self._uses):
            self._drop(name)
        self._forwards.end()
        for task in self._tasks:
            task.cancel()

    async def ready(self, turn_id: str) -> float | None:
        """Wait for those that a turn waits for; gives for how many seconds, None without servers.

        Raises MCP_UNAVAILABLE where a required one is not there.
        """
        self.open()
        self._turn_id = turn_id
        self._told_in_turn.clear()
        if not self._uses:
            return None
        loop = asyncio.get_running_loop()
        began = loop.time()
        others = {name: use for name, use in self._uses.items() if use.command is None}
        await self._wait(self._waited_for(others))
        self._check(others)
        return loop.time() - began

    @property
    def specs(self) -> Servers:
        """What a process is bound to at once: what it asks us for, as far as that is there."""
        ours: dict[str, Command | None] = {}
        if self._session.config.client_tools:
            ours[CLIENT_SERVER] = None
        for name, use in self._uses.items():
            # One that was lost stays: a call of it says so.
            there = use.state.state is State.CONNECTED or name in self._bound
            if use.lease is not None and there:
                ours[name] = None
        return ours

    def bound(self, process: CliProcess, specs: Servers) -> None:
        """The process has these from now on."""
        self._process, self._bound = process, dict(specs)
        self._offered = {name: use.state.tools for name, use in self._uses.items()}

    async def prepare(self, process: CliProcess) -> None:
        """Bring a bound process up to date, for a turn that begins now.

        Raises MCP_UNAVAILABLE where a required server is not there, and CLI_CRASHED.
        """
        if self._commands:
            await self._run_commands(process)
        elif self._bound != self.specs:
            await self._serve_ours(process)
        for name, use in self._uses.items():
            if use.lease is not None and name in self._bound and self._is_news(name, use):
                await _tell_process(process, name)
        self._tell_missing()

    async def _serve_ours(self, process: CliProcess) -> None:
        wanted = dict(self.specs)
        await process.serve(wanted)
        for name in wanted.keys() - self._bound.keys():
            self._offered[name] = self._uses[name].state.tools
        self._bound = wanted

    def turn_ended(self) -> None:
        """Nobody waits for what was asked in it; also where it never began."""
        self._forwards.end()
        self._turn_id = ""

    def hear(self, process: CliProcess, question: ControlRequest) -> None:
        """Answer what a process asks of a server, or have the server asked."""
        name = question.request.server_name
        use = self._uses.get(name)
        if use is None or use.lease is None:
            process.refuse(question)
        else:
            self._forwards.take(process, question, name, use.lease.connection)

    def withdrawn(self, process: CliProcess, request_id: str) -> None:
        """The process does not wait for this answer any more."""
        self._forwards.withdraw(process, request_id)

    def _opened(self, server: McpServer) -> Mapping[str, str] | None:
        try:
            return server.secrets.values(self._runtime.vault, self._session.tenant)
        except SealBroken:
            return None

    def _use(self, name: str, server: McpServer, secrets: Mapping[str, str] | None) -> _Use:
        connecting = ServerState(State.CONNECTING)
        if secrets is None:
            error = "what is secret of it was stored by a service with another key: give it again"
            return _Use(server, secrets, ServerState(State.FAILED, error=error))
        if server.kind == "stdio":
            command = Command(server.target, server.arguments, secrets)
            return _Use(server, secrets, connecting, command=command)
        target = Target(server.kind, server.target, secrets)
        try:
            changed = partial(self._on_change, name)
            lease = self._runtime.broker.lease(self._session.tenant, target, changed)
        except WarmlineError as error:
            return _Use(server, secrets, ServerState(State.FAILED, error=error.message))
        return _Use(server, secrets, connecting, lease)

    def _drop(self, name: str) -> None:
        use = self._uses.pop(name)
        self._told.pop(name, None)
        if use.lease is not None:
            use.lease.release()

    @property
    def _commands(self) -> dict[str, _Use]:
        return {name: use for name, use in self._uses.items() if use.command is not None}

    @property
    def _with_commands(self) -> dict[str, Command | None]:
        return {**self.specs, **{name: use.command for name, use in self._commands.items()}}

    def _waited_for(self, uses: dict[str, _Use]) -> dict[str, _Use]:
        names = self._session.config.mcp_wait.names
        return {
            name: use
            for name, use in uses.items()
            if use.server.required or names is None or name in names
        }

    async def _wait(self, uses: dict[str, _Use]) -> None:
        seen = {name: use.state for name, use in uses.items()}
        for use in uses.values():
            if use.lease is not None and use.state.state is State.FAILED:
                use.lease.connection.hurry()
        try:
            async with asyncio.timeout(self._session.config.mcp_wait.timeout):
                while any(_pending(use, seen[name]) for name, use in uses.items()):
                    self._changed.clear()
                    await self._changed.wait()
        except TimeoutError:
            return

    def _check(self, uses: dict[str, _Use]) -> None:
        for name, use in uses.items():
            if use.server.required and use.state.state is not State.CONNECTED:
                self._tell(name, use.state, always=True)
                why = use.state.error or "it is not connected yet"
                text = f"The MCP server {name} is needed: {why}."
                raise WarmlineError(Reason.MCP_UNAVAILABLE, text, metadata={"server": name})

    async def _run_commands(self, process: CliProcess) -> None:
        """Have the CLI run its servers, and those again that failed and are required.

        It does nothing else until each has come up, has failed, or was given up.
        """
        commands, wanted = self._commands, self._with_commands
        timeout = self._session.config.mcp_wait.timeout
        if self._bound != wanted:
            for use in commands.values():
                use.own = ServerState(State.CONNECTING)
            with contextlib.suppress(ControlRefused):  # Then it does not say that they are up.
                await process.serve(wanted, timeout)
            self._bound = wanted
        await self._look_at_commands(process)
        for name, use in commands.items():
            if use.server.required and use.state.state is State.FAILED:
                await process.serve_again(name, timeout)
                await self._look_at_commands(process)
        self._check(commands)

    async def _look_at_commands(self, process: CliProcess) -> None:
        states = await look_at_commands(process)
        lost = ServerState(State.FAILED, error="the CLI does not say how it is")
        for name, use in self._commands.items():
            use.own = states.get(name, lost)
            self._on_change(name)

    def _on_change(self, name: str) -> None:
        self._changed.set()
        use = self._uses.get(name)
        if use is None:
            return
        self._tell(name, use.state)
        process = self._process
        if use.lease is None or name not in self._bound or process is None or not process.alive:
            return
        if self._is_news(name, use):
            self._spawn(_tell_process(process, name))

    def _is_news(self, name: str, use: _Use) -> bool:
        """Whether a server offers something else than its process knows of, which it is told then."""
        state = use.state
        if state.state is not State.CONNECTED or state.tools == self._offered.get(name):
            return False
        self._offered[name] = state.tools
        return True

    def _tell_missing(self) -> None:
        """A turn that begins without a server says so, each time."""
        for name, use in self._uses.items():
            self._tell(name, use.state, always=use.state.state is not State.CONNECTED)

    def _tell(self, name: str, state: ServerState, *, always: bool = False) -> None:
        status, known = _status(name, state), self._told.get(name)
        again = always and name not in self._told_in_turn
        if again or (known != status and (always or state.state is not State.CONNECTING)):
            self._told[name] = status
            self._told_in_turn.add(name)
            self._emit(status, self._turn_id, "")

    def _spawn(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task


def _pending(use: _Use, seen: ServerState) -> bool:
    state = use.state
    if state.state is State.FAILED:
        # It has just been told to try again; what it says then counts.
        return use.server.required and use.lease is not None and state is seen
    return state.state is State.CONNECTING


def _same(use: _Use, server: McpServer, secrets: Mapping[str, str] | None) -> bool:
    """Whether a server is the one that is in use: sealed again, its secrets look otherwise."""
    known = use.server
    return (known.kind, known.target, known.arguments, use.secrets) == (
        server.kind,
        server.target,
        server.arguments,
        secrets,
    )


def _status(name: str, state: ServerState) -> ServerStatus:
    return ServerStatus(name, state.state.value, state.error, state.tool_names)


async def _tell_process(process: CliProcess, name: str) -> None:
    """Have the CLI look at a server's tools again."""
    try:
        await process.control("mcp_message", server_name=name, message=_CHANGED)
    except WarmlineError as error:
        _log.debug("change not told", process=process.id, error=error.message)
