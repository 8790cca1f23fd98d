"""What the CLI that is installed here can do, found out once by trying it."""

from __future__ import annotations

import asyncio
import contextlib
import re
import secrets
import uuid
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import msgspec
import structlog

from warmline_service.errors import Reason, WarmlineError
from warmline_service.worker._child import ended
from warmline_service.worker._control import ControlRefused
from warmline_service.worker._history import History, Told, going_on
from warmline_service.worker._inject import inject
from warmline_service.worker._key import Binding, Capabilities, ModelInfo, SpawnKey
from warmline_service.worker._launch import Launcher, Site
from warmline_service.worker._messages import JsonObject
from warmline_service.worker._options import Options
from warmline_service.worker._pending import Pending
from warmline_service.worker._prime import TurnEnd, run_turn, warm
from warmline_service.worker._probe_model import ModelRequest, ProbeModel
from warmline_service.worker._process import CliProcess

_log = structlog.get_logger(__name__)

_SUPPORTED = ((2, 1, 300), (3, 0, 0))
_VERSION_TIMEOUT = 10.0
_TRIALS = 3
# It asks within a tenth of a second; one that does not must not hold the service up for long.
_ASK_TIMEOUT = 15.0
# What the CLI says of a flag that it does not have: the mirror's is the only one that may be missing.
_UNKNOWN_FLAG = "unknown option"
# Words that nothing but the first turn says.
_FIRST = "this is the warm-up turn of a probe"


async def probe(site: Site) -> Capabilities:
    """Start one CLI against a model of our own and try each fact that is leaned on.

    What does not hold is False, which means a cold spawn for whatever needs it. Raises
    CLI_NOT_FOUND for a binary that is no supported CLI, CLI_CRASHED for one that does not start.
    """
    version = await read_version(site.binary)
    model = ProbeModel()
    try:
        found = await _try(site, model, Capabilities(version, mirror=True))
    except WarmlineError as error:
        if _UNKNOWN_FLAG not in error.metadata.get("stderr", ""):
            raise
        _log.warning("the CLI does not tell of its transcript")
        found = await _try(site, model, Capabilities(version))
    return replace(found, late_directories=site.shows_late)


async def _try(site: Site, model: ProbeModel, can: Capabilities) -> Capabilities:
    goes_on = asyncio.create_task(_goes_on(site, can))
    try:
        found = await _try_facts(site, model, can)
        return replace(found, goes_on=found.mirror and await goes_on)
    finally:
        goes_on.cancel()
        await asyncio.wait({goes_on})


async def _goes_on(site: Site, can: Capabilities) -> bool:
    """Start one with a transcript that ends in a call, and see it ask about just that by itself."""
    launcher = Launcher(site, ProbeModel().open_endpoint, can)
    call = Pending(f"toolu_{secrets.token_hex(8)}", "Bash", {"command": "touch probe"}, Options())
    try:
        async with asyncio.timeout(_ASK_TIMEOUT):
            process = await launcher.start(SpawnKey(resume=going_on(_up_to(call), call)))
    except (WarmlineError, TimeoutError) as error:
        _log.warning("the CLI does not go on from a call", error=str(error))
        return False
    else:
        # Also where nobody wants to know any more: its slot is swept by nobody else.
        stopping = asyncio.create_task(process.stop())
        try:
            await asyncio.shield(stopping)
        finally:
            await asyncio.wait({stopping})
        return True
    finally:
        await launcher.aclose()


def _up_to(call: Pending) -> list[bytes]:
    """A transcript that ends in a call."""
    block = {"type": "tool_use", "id": call.id, "name": call.tool, "input": dict(call.input)}
    answer = {"role": "assistant", "id": "msg_probe", "model": "m", "type": "message"}
    messages: list[JsonObject] = [
        {"role": "user", "content": _FIRST},
        answer | {"content": [block], "stop_reason": "tool_use", "usage": {}},
    ]
    entries = [
        {"type": each["role"], "uuid": str(uuid.uuid4()), "isSidechain": False, "message": each}
        for each in messages
    ]
    return [msgspec.json.encode(each) for each in entries]


async def _try_facts(site: Site, model: ProbeModel, can: Capabilities) -> Capabilities:
    launcher = Launcher(site, model.open_endpoint, can)
    try:
        # One that is cut short says nothing about the CLI: it may have been killed, or had no time.
        for _ in range(_TRIALS - 1):
            trial = await _trial(launcher, site, model, can)
            if trial.whole:
                return trial.found
        return (await _trial(launcher, site, model, can)).found
    finally:
        await launcher.aclose()


async def _trial(launcher: Launcher, site: Site, model: ProbeModel, can: Capabilities) -> _Trial:
    process = await launcher.start(SpawnKey())
    try:
        trial = _Trial(process, model, can.version)
        await trial.run(site.settings.start_timeout)
        return trial
    finally:
        await process.stop()


async def read_version(binary: Path) -> str:
    """What `--version` says, such as "2.1.329"; raises CLI_NOT_FOUND if it is not supported."""
    text = await _version_text(binary)
    found = re.match(r"(\d+)\.(\d+)\.(\d+)\b", text)
    if found is None:
        raise _unfit(binary, f"is not a Claude Code CLI: --version says {text[:80]!r}")
    least, bound = _SUPPORTED
    if not least <= tuple(map(int, found.groups())) < bound:
        wanted = f">={'.'.join(map(str, least))}, <{bound[0]}"
        raise _unfit(binary, f"has version {found[0]}; this service needs {wanted}")
    return found[0]


async def _version_text(binary: Path) -> str:
    env = {"PATH": "/usr/local/bin:/usr/bin:/bin", "HOME": "/nonexistent"}
    try:
        code, said = await ended((str(binary), "--version"), env, _VERSION_TIMEOUT)
    except OSError as error:
        raise _unfit(binary, f"does not run: {error.strerror or error}") from error
    if code is None:
        raise _unfit(binary, "does not answer --version")
    return said.decode("utf-8", "replace").strip()


class _Trial:
    """Fills a capability record in as one fact after another is seen to hold."""

    def __init__(self, process: CliProcess, model: ProbeModel, version: str) -> None:
        self._process = process
        self._model = model
        self.found = Capabilities(version)
        # Whether every fact was tried.
        self.whole = False

    async def run(self, timeout: float) -> None:
        try:
            async with asyncio.timeout(timeout):
                first = await self._bind_prompt()
                await self._clear_and_bind_model(first)
        except (WarmlineError, TimeoutError) as error:
            _log.warning("the CLI lacks a capability", found=repr(self.found), error=str(error))
        else:
            self.whole = True

    async def _bind_prompt(self) -> ModelRequest:
        """Warm a process up, bind a directory and a prompt, and see just that in the first request."""
        question = len(self._model.requests)
        with contextlib.suppress(ControlRefused):
            await warm(self._process)
        asked = len(self._model.requests) > question
        place, mark = self._process.slot.tmp, secrets.token_hex(8)
        with contextlib.suppress(ControlRefused):
            await self._process.bind(Binding(workspace=place))
        answer = await self._process.control("initialize", systemPrompt=[mark])
        self.found = replace(self.found, models=_models(answer))
        end = TurnEnd()
        request = await self._turn(_FIRST, end)
        self.found = replace(
            self.found,
            unix_socket=True,
            late_system_prompt=mark in request.system,
            late_workspace=f"{place}\\n" in request.messages,
            warming=asked and mark in request.system,
            mirror=any(_FIRST.encode() in line for line in end.entries),
        )
        return request

    async def _clear_and_bind_model(self, first: ModelRequest) -> None:
        """Clear that turn, bind another model, tell a history, and see that all three hold."""
        await run_turn(self._process, "/clear", verbatim=False)
        other = next((each for each in self.found.models if each.id != first.model), None)
        if other is not None:
            await self._process.bind(Binding(model=other.value))
        told = [secrets.token_hex(8) for _ in range(3)]
        asked = len(self._model.requests)
        with contextlib.suppress(WarmlineError):
            await inject(self._process, _history(told))
        silent = len(self._model.requests) == asked
        second = await self._turn("again")
        places = [second.messages.find(mark) for mark in (*told, "again")]
        self.found = replace(
            self.found,
            late_model=other is not None and second.model == other.id,
            priming=_FIRST in first.messages and _FIRST not in second.messages,
            injection=silent and -1 not in places and places == sorted(places),
        )

    async def _turn(self, text: str, end: TurnEnd | None = None) -> ModelRequest:
        """Run a turn; raises CLI_CRASHED if it did not come to the model."""
        before = len(self._model.requests)
        result = await run_turn(self._process, text, end=end)
        if len(self._model.requests) == before:
            raise WarmlineError(
                Reason.CLI_CRASHED, f"The CLI did not reach its model: {result.result}"
            )
        return self._model.requests[-1]


def _history(marks: Sequence[str]) -> History:
    told = []
    for index, mark in enumerate(marks):
        role = "assistant" if index % 2 else "user"
        content = [{"type": "text", "text": mark}]
        message: JsonObject = {"role": role, "content": content}
        if role == "assistant":
            message |= {"id": "msg_probe", "model": "m", "type": "message"}
        told.append(Told(role, str(uuid.uuid4()), msgspec.json.encode(message)))
    return History(tuple(told))


def _models(answer: JsonObject) -> tuple[ModelInfo, ...]:
    """The models in an answer to `initialize`; entries of another shape are left out."""
    try:
        entries = msgspec.convert(answer.get("models", []), list[_Model])
    except msgspec.ValidationError:
        return ()
    return tuple(
        ModelInfo(
            each.value,
            each.resolved_model or each.value,
            each.display_name,
            each.description,
            tuple(each.supported_effort_levels),
        )
        for each in entries
    )


class _Model(msgspec.Struct, rename="camel"):
    value: str
    resolved_model: str = ""
    display_name: str = ""
    description: str = ""
    supported_effort_levels: list[str] = []


def _unfit(binary: Path, problem: str) -> WarmlineError:
    return WarmlineError(
        Reason.CLI_NOT_FOUND,
        f"{binary} {problem}. Set cli.path to another, or run `pip install 'warmline[cli]'`.",
    )
