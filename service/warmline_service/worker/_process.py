"""One CLI process as others see it: it is bound, spoken to, listened to, measured and stopped."""

from __future__ import annotations

import asyncio
import contextlib
import signal
from collections.abc import Awaitable, Iterable, Sequence
from pathlib import Path

import structlog

from warmline_service.config import CliSettings
from warmline_service.errors import Reason, WarmlineError, field_invalid
from warmline_service.worker._argv import check_model
from warmline_service.worker._binding import Ask, asks_of
from warmline_service.worker._blocks import Content, check_content
from warmline_service.worker._child import Child
from warmline_service.worker._control import (
    ControlRefused,
    PendingControls,
    answer,
    encode_line,
    refusal,
)
from warmline_service.worker._debug import DebugLog
from warmline_service.worker._decode import decode
from warmline_service.worker._enclosure import Enclosure
from warmline_service.worker._exit import Exit, Sink, exit_of
from warmline_service.worker._framing import LineSplitter, LineTooLong
from warmline_service.worker._guard import kill_marked
from warmline_service.worker._key import Binding, Capabilities, SpawnKey
from warmline_service.worker._messages import (
    CliMessage,
    ControlCancelRequest,
    ControlRequest,
    ControlResponse,
    Garbage,
    JsonObject,
    StreamEvent,
    TranscriptMirror,
)
from warmline_service.worker._options import PermissionMode, Servers, servers_as_json
from warmline_service.worker._pending import Pending
from warmline_service.worker._questions import OnQuestion, Questions
from warmline_service.worker._salvage import Salvage, offer
from warmline_service.worker._slot import Endpoint, Slot
from warmline_service.worker._slots import wipe
from warmline_service.worker._state import Life
from warmline_service.worker._stderr import StderrTail
from warmline_service.worker._stop import stop_by_ladder
from warmline_service.worker._transcript import without
from warmline_service.worker._usage import tree_memory

_log = structlog.get_logger(__name__)

# The CLI reads 20 MB a second or more; a write may take as long as at this rate, and a bit.
_SLOWEST_WRITE = 1024 * 1024


class _NotJson(Exception):  # noqa: N818  # named for the line
    """The CLI wrote a line that is no JSON."""


class CliProcess:
    """A running process in its slot. Whoever holds it must `stop` it; it cleans up by itself.

    `before_wipe`, once set, is offered the slot when nothing runs in it any more; set when `wiping`, it
    comes too late. `on_question`, once
    set, is given what the CLI asks, and what it asks no more; each question wants an `answer`. What one
    that goes on from a call asks before that is kept for it.
    `debug_log` is there where its key has `debug`; it can still be read when the process has ended.
    """

    def __init__(
        self,
        child: Child,
        key: SpawnKey,
        slot: Slot,
        endpoint: Endpoint,
        settings: CliSettings,
        can: Capabilities,
        enclosure: Enclosure,
    ) -> None:
        loop = asyncio.get_running_loop()
        self.id = slot.id
        self.pid = child.pid
        self.key = key
        self.slot = slot
        self.version = can.version
        self.life = Life()
        self.started_at = loop.time()
        self.spawn_seconds = 0.0
        self.dropped = 0
        self.before_wipe: Salvage | None = None
        self.wiping = False
        self._questions = Questions(self.refuse, keeps=key.pending is not None)
        self.debug_log: DebugLog | None = None
        self.control_timeout = settings.control_timeout
        self.exited: asyncio.Future[Exit] = loop.create_future()
        self._child = child
        self._endpoint = endpoint
        self._enclosure = enclosure
        self._enclosure.hold(self)
        self._settings = settings
        self._aliases = {model.id: model.value for model in can.models}
        self._controls = PendingControls()
        self._splitter = LineSplitter(settings.max_line_bytes)
        self._stderr = StderrTail(settings.stderr_bytes)
        self._sink: Sink | None = None
        self._echoes: set[str] = set()
        self._cause = ""
        self._stopping: asyncio.Task[None] | None = None
        self._replies: set[asyncio.Task[None]] = set()
        self._life_of_child = asyncio.create_task(self._see_through(), name=f"cli-{self.id}")

    def __repr__(self) -> str:
        return f"<CliProcess {self.id} {self.life.state} pid={self.pid} {self.key}>"

    @property
    def alive(self) -> bool:
        """Whether it runs and has not been given up."""
        return not (self.exited.done() or self._cause or self._stopping)

    @property
    def on_question(self) -> OnQuestion | None:
        """Who is given what the CLI asks; nobody at first."""
        return self._questions.listener

    @on_question.setter
    def on_question(self, listener: OnQuestion | None) -> None:
        self._questions.listen(listener)

    async def asks(self, pending: Pending) -> None:
        """Wait until it asks about the call that it goes on from.

        Raises CLI_CRASHED where it ends first, or asks about another one.
        """
        asked = await self._questions.first_call(self.exited)
        if asked is None:
            raise self.exited.result().error()
        if asked != pending.id:
            raise WarmlineError(Reason.CLI_CRASHED, "The CLI did not go on from the call.")

    def give_up(self, cause: str) -> None:
        """End it at once, where nothing more of it is wanted; `stop` is still to be called."""
        self._give_up(cause)

    @property
    def stderr_tail(self) -> str:
        """The end of what it wrote to stderr so far."""
        return self._stderr.text()

    @property
    def folders(self) -> tuple[Path, ...]:
        """Directories outside of its slot that it may write to."""
        return self._enclosure.folders

    def attach(self, sink: Sink | None) -> None:
        """From now on `sink` listens, alone; it is told at once if the process has ended."""
        self._sink = sink
        if sink is not None and self.exited.done():
            sink.on_exit(self.exited.result())

    async def bind(self, binding: Binding) -> None:
        """Give a fresh process all that is its session's, in one write, before its first turn.

        Raises FIELD_INVALID for what cannot be a model's name, STORAGE_UNAVAILABLE where a directory
        cannot be shown to it, otherwise as `control` does.
        """
        asks = asks_of(binding, self.key, self._alias)
        places = (binding.workspace, *binding.options.directories)
        await self._enclosure.show([each for each in places if each is not None])
        await self._ask(asks, self._settings.control_timeout)

    async def change(self, model: str | None, mode: PermissionMode | None) -> None:
        """Another model (`default`: the CLI's own) or permission mode, at any time; None: as it is.

        Raises as `control` does; the mode may have changed then and the model not.
        """
        asks: list[Ask] = []
        if mode is not None:
            asks.append(("set_permission_mode", {"mode": mode}))
        if model is not None:
            asks.append(("set_model", {"model": self._alias(check_model(model))}))
        await self._ask(asks, self._settings.control_timeout)

    async def serve(self, servers: Servers, patience: float = 0.0) -> None:
        """These MCP servers from now on; those that it runs itself have `patience` seconds to come up.

        Meanwhile it does nothing else. Raises as `control` does.
        """
        if patience:
            await self._wait_for_servers(patience)
        timeout = patience + self._settings.control_timeout
        await self.control("mcp_set_servers", timeout=timeout, servers=servers_as_json(servers))

    async def serve_again(self, name: str, patience: float) -> None:
        """Run a server again that has failed; that it fails again is no error. As `serve`."""
        await self._wait_for_servers(patience)
        with contextlib.suppress(ControlRefused):
            timeout = patience + self._settings.control_timeout
            await self.control("mcp_reconnect", timeout=timeout, serverName=name)

    async def _wait_for_servers(self, seconds: float) -> None:
        patience = {"env": {"MCP_TIMEOUT": f"{seconds * 1000:.0f}"}}
        await self.control("apply_flag_settings", settings=patience)

    async def send_user(self, content: Content, uuid: str, *, verbatim: bool = True) -> None:
        """Begin a turn with text or content blocks; `verbatim`: no command or `@file` is acted upon.

        Raises FIELD_INVALID for what is neither, or not Unicode, CLI_CRASHED where it cannot be
        written.
        """
        await self.send_line(check_content(content), uuid, verbatim=verbatim)

    async def send_line(self, content: Content, uuid: str, *, verbatim: bool) -> None:
        """As `send_user`, for content that is known to be good."""
        line: JsonObject = {
            "type": "user",
            "message": {"role": "user", "content": content},
            "parent_tool_use_id": None,
            "session_id": "",
            "uuid": uuid,
        }
        if verbatim:
            line["client_composed"] = True
        await self.write_line(line)

    async def write_line(self, line: JsonObject) -> None:
        """Write a line as it is. Raises as `send_user` does."""
        await self._write(_encode(line))

    def expect_echo(self, uuids: Iterable[str]) -> None:
        """Keep transcript entries with these uuids from whoever listens: they are known already."""
        self._echoes.update(uuids)

    async def interrupt(self) -> None:
        """Ask the CLI to end its turn; harmless when there is none. Raises as `control` does."""
        await self.control("interrupt", timeout=self._settings.interrupt_timeout)

    async def control(
        self, subtype: str, *, timeout: float | None = None, **fields: object
    ) -> JsonObject:
        """Ask, and wait for the answer at most `timeout` seconds (default: cli.control_timeout).

        Raises ControlRefused, or CLI_CRASHED when the process dies or does not answer.
        """
        answers = await self._ask([(subtype, fields)], timeout or self._settings.control_timeout)
        return answers[0]

    async def ping(self) -> None:
        """Make sure that it still answers; takes it about 2 ms and changes nothing."""
        await self.control("get_session_cost")

    def memory_bytes(self) -> int:
        """Memory (PSS) of the process and all below it, 0 when gone. Reads /proc: use a thread."""
        return 0 if self._child.reaped.done() else tree_memory(self.pid)

    async def stop(self) -> None:
        """End the process and all below it, close its endpoint, wipe its slot. Idempotent.

        Goes on when the caller is cancelled; takes at most seven times cli.stop_timeout.
        """
        if self._stopping is None:
            self._stopping = asyncio.create_task(self._stop(), name=f"stop-{self.id}")
        await asyncio.shield(self._stopping)

    def _alias(self, model: str) -> str:
        # Asked for an id, the CLI may first make a request to see whether there is such a model.
        return self._aliases.get(model, model)

    async def _stop(self) -> None:
        self._cause = self._cause or "was stopped"
        rung = await stop_by_ladder(self._child, self._settings.stop_timeout)
        if rung is None:
            _log.error("process would not die", process=self.id, pid=self.pid)
            self._life_of_child.cancel()
        await asyncio.wait({self._life_of_child})
        if not self._life_of_child.cancelled():
            self._life_of_child.result()

    async def _ask(self, asks: Sequence[Ask], timeout: float) -> list[JsonObject]:
        """Write all requests at once, then wait for all answers."""
        if not asks:
            return []
        opened = [self._controls.open(subtype, fields) for subtype, fields in asks]
        try:
            async with asyncio.timeout(timeout):
                await self._write(b"".join(line for _, line in opened))
                return [await self._controls.answer(request_id) for request_id, _ in opened]
        except TimeoutError:
            names = " and ".join(subtype for subtype, _ in asks)
            raise WarmlineError(
                Reason.CLI_CRASHED, f"The CLI did not answer {names} within {timeout:g} s."
            ) from None
        finally:
            for request_id, _ in opened:
                self._controls.forget(request_id)

    async def _write(self, data: bytes) -> None:
        if self.exited.done():
            raise self.exited.result().error()
        if not self.alive:
            raise WarmlineError(Reason.CLI_CRASHED, f"The CLI process {self._cause}.")
        timeout = self._settings.control_timeout + len(data) / _SLOWEST_WRITE
        try:
            await self._child.write(data, timeout)
        except (TimeoutError, OSError) as error:
            if isinstance(error, TimeoutError):
                self._give_up("did not read its input")
            # It is ending; how it ended says more than a broken pipe.
            await asyncio.wait({self.exited}, timeout=self._settings.stop_timeout)
            if self.exited.done():
                raise self.exited.result().error() from error
            raise WarmlineError(Reason.CLI_CRASHED, "The CLI process reads no more.") from error

    def _give_up(self, cause: str) -> None:
        """End it at once: after this nothing that it says can be trusted."""
        if not self._cause:
            self._cause = cause
        self._child.signal_group(signal.SIGKILL)

    async def _see_through(self) -> None:
        """Listen until the process has ended, then clear away what is left of it."""
        out = self._child.output.ended
        err = self._child.errors.ended
        self._child.output.listen(self._take)
        self._child.errors.listen(self._stderr.feed)
        try:
            await asyncio.wait({out, self._child.reaped}, return_when=asyncio.FIRST_COMPLETED)
            if not await self._child.gone(self._settings.stop_timeout):
                self._give_up("closed its output")
                await self._child.gone(self._settings.stop_timeout)
            # They may hold the pipes open, in which what was written before still counts.
            await self._kill_descendants()
            if not self._cause:
                why = await self._enclosure.why_ended()
                self._cause = self._cause or why
            await asyncio.wait({out, err}, timeout=self._settings.stop_timeout)
            if self.debug_log is not None:
                await asyncio.to_thread(self.debug_log.seal)
        except asyncio.CancelledError:
            # The loop is ending and nobody stopped the process first.
            self._give_up("was abandoned")
            await self._child.gone(self._settings.stop_timeout)
            await self._kill_descendants()
            raise
        finally:
            self._child.output.close()
            self._child.errors.close()
            try:
                self._end()
            finally:
                await self._clear_away()

    async def _kill_descendants(self) -> None:
        timeout = self._settings.stop_timeout
        await self._enclosure.empty(timeout)
        if not await asyncio.to_thread(kill_marked, {self.slot.id}, timeout):
            _log.error("descendants would not die", process=self.id)

    def _end(self) -> None:
        ended = exit_of(self._child.returncode, self._stderr.text(), self._cause)
        self.exited.set_result(ended)
        self._controls.fail_all(ended.error())
        if self._sink is not None:
            self._sink.on_exit(ended)

    async def _clear_away(self) -> None:
        self._child.close()
        timeout = self._settings.stop_timeout
        try:
            async with asyncio.timeout(timeout):
                await self._endpoint.aclose()
        except (TimeoutError, OSError):
            _log.exception("endpoint could not be closed", process=self.id)
        await self._enclosure.aclose()
        self.wiping = True
        if self.before_wipe is not None:
            await offer(self.before_wipe, self.slot)
        if not await asyncio.to_thread(wipe, self.slot):
            _log.error("slot could not be wiped", process=self.id, path=str(self.slot.root))
        if self._replies:
            await asyncio.wait(self._replies, timeout=timeout)

    def _take(self, data: bytes) -> None:
        """Act on what the CLI wrote."""
        try:
            self._hear([decode(line) for line in self._splitter.feed(data)])
        except (LineTooLong, _NotJson) as error:
            self._give_up(f"broke the protocol: {error}")
        except Exception:  # noqa: BLE001  # a process that nobody reads has to end, whatever it was
            _log.exception("reading from a process failed", process=self.id)
            self._give_up("could not be read")
        else:
            return
        self._child.output.close()

    def _hear(self, messages: list[CliMessage]) -> None:
        batch: list[CliMessage] = []
        for message in messages:
            if type(message) is StreamEvent:  # Nearly all are.
                batch.append(message)
            elif isinstance(message, ControlResponse):
                self._controls.settle(message.response)
            elif isinstance(message, ControlRequest | ControlCancelRequest):
                self._questions.take(message)
            elif isinstance(message, TranscriptMirror) and self._echoes:
                batch += self._news(message)
            else:
                batch.append(message)
            if isinstance(message, Garbage):
                break
        if self._sink is None:
            self.dropped += len(batch)
        elif batch:
            self._sink.on_messages(batch)
        if batch and isinstance(batch[-1], Garbage):
            raise _NotJson("a line that is not JSON")

    def _news(self, mirror: TranscriptMirror) -> list[CliMessage]:
        news, found = without(mirror, self._echoes)
        self._echoes -= found
        return [news] if news.entries else []

    def answer(self, request_id: str, response: JsonObject) -> None:
        """Answer a question of the CLI; one that it asks no more does no harm."""
        self._reply(answer(request_id, response))

    def refuse(self, question: ControlRequest) -> None:
        """Say that nobody here can answer."""
        self._reply(refusal(question.request_id, question.request.subtype))

    def _reply(self, line: bytes) -> None:
        task = asyncio.create_task(_quietly(self._write(line)))
        self._replies.add(task)
        task.add_done_callback(self._replies.discard)


async def _quietly(work: Awaitable[None]) -> None:
    """For an answer that only a process which is ending would miss."""
    try:
        await work
    except WarmlineError as error:
        _log.debug("answer not written", error=error.message)


def _encode(line: JsonObject) -> bytes:
    try:
        return encode_line(line)
    except UnicodeEncodeError:
        raise field_invalid("text", "holds a lone surrogate, which is no character") from None
