"""A session's MCP servers: lent by the broker, told to its process, and asked for it."""

from __future__ import annotations

import asyncio
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
from warmline_service.worker import CliProcess, Command, ControlRequest, Servers

_log = structlog.get_logger(__name__)

_CHANGED = {"jsonrpc": "2.0", "method": "notifications/tools/list_changed"}
# What a command may take to come up, in seconds: it may have to be downloaded first. A turn waits less.
_COMMAND_TIMEOUT = 120.0


@dataclass
class _Use:
    """One server of the session's: by a lease, or by a command of the CLI's, or not to be had at all.

    `own` is the state where there is no lease.
    """

    server: McpServer
    own: ServerState
    lease: Lease | None = None
    command: Command | None = None

    @property
    def state(self) -> ServerState:
        return self.own if self.lease is None else self.lease.state


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
        self._serving: asyncio.Task[None] | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def statuses(self) -> tuple[ServerStatus, ...]:
        """How each of them is."""
        return tuple(_status(name, use.state) for name, use in self._uses.items())

    def open(self) -> None:
        """Have just the servers that the session is set up with: those by address are connected to."""
        wanted = self._session.config.mcp_servers
        for name in [each for each, use in self._uses.items() if wanted.get(each) != use.server]:
            self._drop(name)
        for name, server in wanted.items():
            if name not in self._uses:
                self._uses[name] = self._use(name, server)

    def close(self) -> None:
        """Have no more use for any of them."""
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

    async def bound(self, process: CliProcess, specs: Servers) -> None:
        """The process has these now; have it run the commands beside them. Raises MCP_UNAVAILABLE."""
        self._process, self._bound = process, dict(specs)
        self._offered = {name: use.state.tools for name, use in self._uses.items()}
        await self._run_commands(process)
        self._tell_missing()

    async def refresh(self, process: CliProcess) -> None:
        """Bring a process that was bound before up to date. Raises as `bound` does, and CLI_CRASHED."""
        wanted = self._with_commands
        if self._bound != wanted and not self._commands:
            await process.serve(wanted, self._runtime.cli.control_timeout)
            self._bound = wanted
        elif self._bound != wanted:
            await self._run_commands(process)
        self._tell_missing()

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

    def _use(self, name: str, server: McpServer) -> _Use:
        tenant, runtime = self._session.tenant, self._runtime
        connecting = ServerState(State.CONNECTING)
        try:
            secrets = server.secrets.values(runtime.vault, tenant)
            if server.kind == "stdio":
                command = Command(server.target, server.arguments, secrets)
                return _Use(server, connecting, command=command)
            target = Target(server.kind, server.target, secrets)
            lease = runtime.broker.lease(tenant, target, partial(self._on_change, name))
        except SealBroken:
            error = "what is secret of it was stored by a service with another key: give it again"
            return _Use(server, ServerState(State.FAILED, error=error))
        except WarmlineError as error:
            return _Use(server, ServerState(State.FAILED, error=error.message))
        return _Use(server, connecting, lease)

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
        """Have the CLI run its servers; a turn waits for them as long as for the others."""
        commands = self._commands
        if not commands:
            return
        if self._serving is None or self._serving.done():
            self._serving = self._spawn(self._serve(process, self._with_commands, commands))
        wait = self._session.config.mcp_wait.timeout if self._waited_for(commands) else 0
        await asyncio.wait({self._serving}, timeout=wait)
        self._check(commands)

    async def _serve(
        self, process: CliProcess, servers: dict[str, Command | None], commands: dict[str, _Use]
    ) -> None:
        states: Mapping[str, ServerState] = {}
        for use in commands.values():
            use.own = ServerState(State.CONNECTING)
        try:
            await process.serve(servers, _COMMAND_TIMEOUT)
            states = await look_at_commands(process)
        except WarmlineError as error:
            _log.info("commands not served", process=process.id, reason=error.message)
        else:
            self._bound = servers
        for name, use in commands.items():
            lost = ServerState(State.FAILED, error="the CLI does not say how it is")
            use.own = states.get(name, lost)
            self._on_change(name)

    def _on_change(self, name: str) -> None:
        self._changed.set()
        use = self._uses.get(name)
        if use is None:
            return
        self._tell(name, use.state)
        process = self._process
        if use.state.tools == self._offered.get(name) or name not in self._bound:
            return
        self._offered[name] = use.state.tools
        if use.lease is not None and process is not None and process.alive:
            self._spawn(_tell_process(process, name))

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


def _status(name: str, state: ServerState) -> ServerStatus:
    return ServerStatus(name, state.state.value, state.error, state.tool_names)


async def _tell_process(process: CliProcess, name: str) -> None:
    """Have the CLI look at a server's tools again."""
    try:
        await process.control("mcp_message", server_name=name, message=_CHANGED)
    except WarmlineError as error:
        _log.debug("change not told", process=process.id, error=error.message)
