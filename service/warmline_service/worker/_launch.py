"""How a CLI process is had: a slot, a way to the model, a spawn, and a first answer."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Self

import msgspec
import structlog

from warmline_service.config import CliSettings, Level
from warmline_service.errors import Reason, WarmlineError
from warmline_service.sandbox import DOOR_ENVIRONMENT, Box, Sandbox, level_missing, levels_of
from warmline_service.worker._argv import Files, build_argv
from warmline_service.worker._binary import find_cli
from warmline_service.worker._child import Child
from warmline_service.worker._debug import DebugLog
from warmline_service.worker._enclosure import Enclosure
from warmline_service.worker._environment import MARKER, build_environment
from warmline_service.worker._equipment import (
    debug_file,
    plugin_folders,
    write_plugins,
    write_trust,
)
from warmline_service.worker._guard import find_guard, kill_marked
from warmline_service.worker._key import Capabilities, SpawnKey
from warmline_service.worker._messages import JsonObject
from warmline_service.worker._pending import RESUME_PROMPT
from warmline_service.worker._prime import prime, warm
from warmline_service.worker._priority import give_way, go_first
from warmline_service.worker._process import CliProcess
from warmline_service.worker._salvage import Salvage
from warmline_service.worker._slot import Endpoint, OpenEndpoint, OpenWay, Slot
from warmline_service.worker._slots import Slots, hand_over, make, wipe
from warmline_service.worker._transcript import Transcript
from warmline_service.worker._watch import Watch

_log = structlog.get_logger(__name__)


@dataclass(frozen=True)
class Site:
    """What every start on this machine has in common.

    `sandbox` is what processes are put into, by default at `level`; without one, and at the level `none`,
    `guard` is the command that goes before.
    """

    settings: CliSettings
    binary: Path
    slots: Slots
    guard: tuple[str, ...]
    sandbox: Sandbox | None = None
    watch: Watch | None = None
    level: Level = "none"

    @classmethod
    async def prepare(
        cls,
        settings: CliSettings,
        slots_root: Path,
        salvage: Salvage | None = None,
        claimed: Callable[[], Awaitable[None]] | None = None,
        sandbox: Sandbox | None = None,
        level: Level | None = None,
    ) -> Self:
        """Find the CLI, take the slots' directory, clear away what a killed service left there.

        `claimed` is awaited when no other service can have the directory, and before anything is
        wiped; `salvage` is offered each slot before that. Raises CLI_NOT_FOUND, SlotsInUse, OSError, and
        what `claimed` does. Call `aclose` at the end. `level`: by default that of the sandbox's settings.
        """
        binary = await asyncio.to_thread(find_cli, settings)
        slots = Slots(slots_root)
        await asyncio.to_thread(slots.claim)
        try:
            if claimed is not None:
                await claimed()
            swept = await slots.sweep(settings.stop_timeout, salvage)
            if swept:
                _log.warning("slots of an earlier run cleared away", slots=swept)
            watch = None
            if sandbox is not None:
                await asyncio.to_thread(sandbox.open)
                watch = Watch(sandbox.settings, slots.root)
                watch.start()
                level = level or sandbox.settings.level
            guard = await find_guard()
            return cls(settings, binary, slots, guard, sandbox, watch, level or "none")
        except BaseException:
            slots.release()
            raise

    @property
    def levels(self) -> frozenset[Level]:
        """What there can be around a process."""
        return levels_of(self.sandbox)

    def around(self, key: SpawnKey) -> Sandbox | None:
        """What a process of this kind is put into. Raises POLICY_DENIED where that cannot be had."""
        level = key.sandbox or self.level
        if level not in self.levels:
            raise level_missing(level)
        return None if level == "none" else self.sandbox

    def new_slot(self, key: SpawnKey) -> Slot:
        """A slot that nobody has had; it is not on disk yet. Raises as `around` does."""
        slot, sandbox = self.slots.new(), self.around(key)
        return slot if sandbox is None else replace(slot, owner=sandbox.owner(slot.id))

    @property
    def shows_late(self) -> bool:
        """Whether a running process can be given directories of the tenant's."""
        return self.sandbox is None or self.sandbox.shares is not None

    def enclosure(self, slot: Slot, key: SpawnKey) -> Enclosure:
        """What is around a slot's process."""
        sandbox = self.around(key)
        return Enclosure(slot, sandbox, None if sandbox is None else self.watch, key.folders)

    async def aclose(self) -> None:
        """Let another service have the directory; no process is left."""
        if self.watch is not None:
            await self.watch.aclose()
        if self.sandbox is not None:
            await asyncio.to_thread(self.sandbox.close)
        self.slots.release()


class Launcher:
    """Starts processes: `open_endpoint` gives each slot its way to the model.

    `open_way` gives those at level `network` one to the network; without it they have none.
    """

    def __init__(
        self,
        site: Site,
        open_endpoint: OpenEndpoint,
        can: Capabilities,
        open_way: OpenWay | None = None,
    ) -> None:
        self._site = site
        self._open_endpoint = open_endpoint
        self._open_way = open_way
        self._can = can
        self._abandoned: set[asyncio.Task[None]] = set()

    async def start(self, key: SpawnKey) -> CliProcess:
        """A process for `key` that answers, and is warmed up as the key says.

        Raises CLI_CRASHED with what the CLI said, within cli.start_timeout; STORAGE_UNAVAILABLE
        where there is no place for a slot. Nothing is left of a start that failed or was cancelled.
        """
        attempt = _Attempt(self._site, key, self._can, self._open_way)
        timeout = self._site.settings.start_timeout
        try:
            async with asyncio.timeout(timeout):
                return await attempt.run(self._open_endpoint)
        except TimeoutError:
            await self._abandon(attempt)
            raise attempt.silence(timeout) from None
        except OSError as error:
            await self._abandon(attempt)
            raise attempt.failure(error) from error
        except BaseException:
            await self._abandon(attempt)
            raise

    async def aclose(self) -> None:
        """Wait until nothing is left of starts that failed."""
        while self._abandoned:
            await asyncio.wait(self._abandoned)

    async def _abandon(self, attempt: _Attempt) -> None:
        task = asyncio.create_task(attempt.undo())
        self._abandoned.add(task)
        task.add_done_callback(self._abandoned.discard)
        await asyncio.shield(task)


class _Attempt:
    """One start, and what there is to undo of it."""

    def __init__(
        self, site: Site, key: SpawnKey, can: Capabilities, open_way: OpenWay | None
    ) -> None:
        self._site = site
        self._key = key
        self._can = can
        self._open_way = open_way
        self._made: asyncio.Future[Slot] | None = None
        self._endpoint: Endpoint | None = None
        self._enclosure: Enclosure | None = None
        self._process: CliProcess | None = None

    async def run(self, open_endpoint: OpenEndpoint) -> CliProcess:
        begun = asyncio.get_running_loop().time()
        slot = self._site.new_slot(self._key)
        self._made = asyncio.ensure_future(asyncio.to_thread(self._make, slot))
        # A thread does not stop when its waiter is cancelled: `undo` waits for it.
        await asyncio.shield(self._made)
        endpoint = self._endpoint = await open_endpoint(slot)
        await asyncio.to_thread(hand_over, slot.sock, slot.owner)
        enclosure = self._enclosure = self._site.enclosure(slot, self._key)
        child = await self._spawn(slot, endpoint, enclosure)
        settings = self._site.settings
        process = self._process = CliProcess(
            child, self._key, slot, endpoint, settings, self._can, enclosure
        )
        await enclosure.settle(process.pid)
        await self._lead_out(slot, enclosure)
        if self._key.debug is not None:
            process.debug_log = DebugLog(debug_file(slot), endpoint.env.values())
        await asyncio.gather(
            process.control("get_binary_version", timeout=settings.start_timeout),
            asyncio.to_thread(give_way, process.pid, settings.nice),
        )
        await asyncio.to_thread(go_first, process.pid)
        # What it had started before it was moved, and nobody's command has run yet.
        await enclosure.settle(process.pid)
        if self._key.pending is not None:
            # What is bound to it afterwards must not decide about the call.
            await process.asks(self._key.pending)
        if self._key.warmed:
            await warm(process)
        if self._key.primed:
            await prime(process)
        process.spawn_seconds = asyncio.get_running_loop().time() - begun
        return process

    async def undo(self) -> None:
        if self._process is not None:
            await self._process.stop()
            return
        if self._endpoint is not None:
            await self._endpoint.aclose()
        if self._enclosure is not None:
            await self._enclosure.empty(self._site.settings.stop_timeout)
            await self._enclosure.aclose()
        if self._made is not None:
            await asyncio.wait({self._made})
            if self._made.exception() is None:
                await asyncio.to_thread(self._unmake, self._made.result())

    def silence(self, timeout: float) -> WarmlineError:
        """The error of a CLI that did not answer in time, with what it wrote to stderr."""
        said = self._process.stderr_tail if self._process is not None else ""
        return WarmlineError(
            Reason.CLI_CRASHED,
            f"The CLI did not answer within {timeout:g} s of its start.",
            metadata={"stderr": said[-1024:]} if said else None,
        )

    def failure(self, error: OSError) -> WarmlineError:
        """The error of a start that the operating system refused."""
        if self._endpoint is None:
            why = f"There is no place for a CLI process: {error.strerror or error}."
            return WarmlineError(Reason.STORAGE_UNAVAILABLE, why)
        why = f"The CLI could not be started: {error.strerror or error}."
        return WarmlineError(Reason.CLI_CRASHED, why)

    async def _lead_out(self, slot: Slot, enclosure: Enclosure) -> None:
        """Give the process its way to the network, where it has one; it begins when that is there."""
        listener = await enclosure.open_door()
        if listener is not None:
            assert self._open_way is not None
            await self._open_way(slot, listener)

    def _make(self, slot: Slot) -> Slot:
        try:
            make(slot)
            if self._key.system_prompt is not None:
                _prompt_file(slot).write_text(self._key.system_prompt.text, encoding="utf-8")
            if agents := _agents_of(self._key):
                _agents_file(slot).write_bytes(msgspec.json.encode(agents))
            write_plugins(slot, self._key.plugins)
            if self._key.setting_sources:
                write_trust(slot, self._key.workspace or slot.work)
            if self._key.resume is not None:
                _transcript_file(slot, self._key.resume).write_bytes(self._key.resume.text)
            if self._key.debug is not None:
                debug_file(slot).touch()
            for each in slot.root.iterdir():
                hand_over(each, slot.owner)
        except BaseException:
            wipe(slot)
            raise
        return slot

    def _unmake(self, slot: Slot) -> None:
        kill_marked({slot.id}, self._site.settings.stop_timeout)
        wipe(slot)

    async def _spawn(self, slot: Slot, endpoint: Endpoint, enclosure: Enclosure) -> Child:
        key = self._key
        transcript = None if key.resume is None else _transcript_file(slot, key.resume)
        installed = self._site.settings.plugins
        files = Files(
            _prompt_file(slot),
            _agents_file(slot),
            transcript,
            debug_file(slot),
            plugin_folders(slot, key.plugins, installed),
        )
        sandbox = self._site.around(key)
        argv = build_argv(
            self._site.binary,
            key,
            files,
            mirror=self._can.mirror,
            sandboxed=sandbox is not None,
        )
        door = self._open_way is not None and (key.sandbox or self._site.level) == "network"
        ways = {**endpoint.env, **(DOOR_ENVIRONMENT if door else {})}
        env = build_environment(slot, ways, self._site.settings.max_retries)
        if key.pending is not None:
            env["CLAUDE_CODE_RESUME_PROMPT"] = RESUME_PROMPT
        place = key.workspace or (slot.home if key.waits_apart(self._can) else slot.work)
        if sandbox is None:
            return await Child.spawn((*self._site.guard, *argv), env, place)
        seen = (self._site.binary, *files.plugins)
        label = {MARKER: slot.id}
        box = Box(slot.id, slot.root, argv, env, place, label, key.folders, seen, door)
        return await self._spawn_in(sandbox, box, enclosure)

    async def _spawn_in(self, sandbox: Sandbox, box: Box, enclosure: Enclosure) -> Child:
        making = asyncio.ensure_future(asyncio.to_thread(sandbox.command, box))
        try:
            command = await asyncio.shield(making)
        except asyncio.CancelledError:
            # What a thread has opened is known when it is done, and not before.
            await asyncio.wait({making})
            if making.exception() is None:
                making.result().close()
                enclosure.begin(making.result())
            raise
        enclosure.begin(command)
        try:
            return await Child.spawn(
                command.argv, command.env, Path("/"), fds=command.fds, umask=command.umask
            )
        finally:
            command.close()


def _agents_of(key: SpawnKey) -> JsonObject:
    """What a process is told of agents at its start: who leads, and all where nobody could tell it later."""
    known = {} if key.pending is None else dict(key.pending.options.agents)
    if key.agent is not None:
        known[key.agent[0]] = key.agent[1]
    return {name: agent.as_json() for name, agent in known.items()}


def _prompt_file(slot: Slot) -> Path:
    return slot.root / "system-prompt"


def _agents_file(slot: Slot) -> Path:
    return slot.root / "agents.json"


def _transcript_file(slot: Slot, transcript: Transcript) -> Path:
    # The CLI takes the session's id from the name.
    return slot.root / f"{transcript.session_id}.jsonl"
