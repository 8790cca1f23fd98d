"""A session, seen as a conversation of turns; it outlives the streams that carry it."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import uuid
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from types import TracebackType
from typing import Any, Self

import grpc
from warmline.v1 import chat_service_pb2 as pb
from warmline.v1 import events_pb2
from warmline.v1 import session_config_pb2 as config_pb

from warmline_client._backoff import Backoff
from warmline_client._call import ChatCall, passes
from warmline_client._errors import WarmlineError
from warmline_client._turn import Turn, is_end, key_of

# How long leaving a conversation waits for the service to end the stream, in seconds.
_CLOSE_TIMEOUT = 5.0
# How many bytes of a turn's events may wait to be read; with more the conversation breaks.
_UNREAD_BYTES = 256 * 1024 * 1024


class Conversation:
    """An async context manager: `send` messages, `interrupt` turns, `allow` or `deny` what is asked, give
    the `tool_result` of tools of your own.

    When the stream breaks or the service goes away, the conversation connects again by itself, for at
    most `reconnect_timeout` seconds (0: not at all): what was missed is told, in order and once, and
    messages that may not have arrived are sent again, which runs none of them twice.

    `opened` tells the session's id and how it was had; `notices` are the events of the session
    itself and of turns from elsewhere, newest last, at most 100. Events wait to be read: where those
    of one turn come to more than 256 MiB, the conversation breaks.
    """

    def __init__(
        self, call: Callable[[], Any], opening: pb.Open, reconnect_timeout: float = 60.0
    ) -> None:
        self._make_call = call
        self._opening = opening
        self._reconnect_timeout = reconnect_timeout
        self.opened = events_pb2.SessionOpened()
        self.notices: deque[events_pb2.Event] = deque(maxlen=100)
        self._cursor = pb.Cursor(epoch=opening.after.epoch, seq=opening.after.seq)
        self._call: ChatCall | None = None
        # By id, once the service has named them; until then by their messages' keys, in order.
        self._turns: dict[str, list[Turn]] = {}
        self._unnamed: dict[str, tuple[Turn, pb.ChatRequest]] = {}
        # Those that are told again from their first event, which this stream alone does.
        self._attached: dict[str, tuple[Turn, pb.ChatRequest]] = {}
        # Until the service says that they have arrived.
        self._answers: dict[str, pb.ChatRequest] = {}
        self._interrupts: deque[asyncio.Future[events_pb2.InterruptResult]] = deque()
        # A call takes one write at a time, and what waits is in the order of the writes.
        self._writing = asyncio.Lock()
        self._reader: asyncio.Task[None] | None = None
        self._broken: WarmlineError | None = None
        self._leaving = False
        # Of the loss that nothing has been told since.
        self._backoff: Backoff | None = None

    async def __aenter__(self) -> Self:
        if not (self._opening.session_id or self._opening.continue_latest):
            self._opening.idempotency_key = self._opening.idempotency_key or str(uuid.uuid4())
        await self._connect(None)
        self._reader = asyncio.create_task(self._read())
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        assert self._reader is not None
        self._leaving = True
        if kind is None and self._broken is None and self._call is not None:
            with contextlib.suppress(WarmlineError):  # The reader learns of it too.
                await self._call.half_close()
            await asyncio.wait({self._reader}, timeout=_CLOSE_TIMEOUT)
        self.cancel()
        self._reader.cancel()
        await asyncio.wait({self._reader})

    def cancel(self) -> None:
        """Give the conversation up at once; a turn that runs goes on in the service."""
        self._leaving = True
        if self._call is None and self._reader is not None:
            self._reader.cancel()
        if self._call is not None:
            self._call.cancel()

    @property
    def session_id(self) -> str:
        """Names the session, to go on with it later."""
        return self.opened.session_id

    @property
    def cursor(self) -> pb.Cursor:
        """The place of the last event that was had: with it another stream goes on from here."""
        return pb.Cursor(epoch=self._cursor.epoch, seq=self._cursor.seq)

    @property
    def broken(self) -> bool:
        """The conversation has ended; open another to go on."""
        return self._broken is not None

    async def send(
        self,
        text: str,
        *,
        key: str = "",
        content: Sequence[pb.InputBlock] = (),
        interpret: bool = False,
    ) -> Turn:
        """Say something; the turn's events come from what is returned.

        `key` is the message's idempotency key: a message that was sent before under it is attached to
        its turn. By default each call is a message of its own. `interpret` lets the CLI act on the
        text: a leading `/` is a command, `@name` reads a file; not for text of others.
        """
        turn = Turn(key or str(uuid.uuid4()))
        message = pb.UserMessage(
            text=text, idempotency_key=turn.key, content=content, interpret=interpret
        )
        frame = pb.ChatRequest(message=message)
        async with self._writing:
            self._check()
            self._unnamed[turn.key] = (turn, frame)
            await self._write(frame)
        return turn

    async def interrupt(self) -> events_pb2.InterruptResult:
        """Stop the running turn and say what happened."""
        result: asyncio.Future[events_pb2.InterruptResult]
        result = asyncio.get_running_loop().create_future()
        async with self._writing:
            self._check()
            if self._call is None:
                raise WarmlineError.of(
                    grpc.StatusCode.UNAVAILABLE, "Connecting again; interrupt after that."
                )
            self._interrupts.append(result)
            try:
                await self._call.write(pb.ChatRequest(interrupt=pb.Interrupt()))
            except BaseException:
                result.cancel()  # Nobody waits for it.
                raise
        return await result

    async def update(
        self,
        *,
        model: str = "",
        permission_mode: config_pb.PermissionMode.ValueType = config_pb.PERMISSION_MODE_UNSPECIFIED,
        mcp_servers: Mapping[str, config_pb.McpServer] | None = None,
        credential: config_pb.Credential | None = None,
    ) -> None:
        """Set the session up differently, also while a turn runs; what is not given stays as it is.

        `session_updated` or a notice `update_refused` among the `notices` says how it went.
        """
        servers = None if mcp_servers is None else pb.McpServers(servers=mcp_servers)
        change = pb.Update(model=model, permission_mode=permission_mode, mcp_servers=servers)
        if credential is not None:
            change.credential.CopyFrom(credential)
        await self._tell(pb.ChatRequest(update=change))

    async def checkpoint(self, *continuations: str) -> None:
        """Let the session be found again by names, one of which a `chat` is given as its `continuation`.

        `checkpointed` among the `notices` says that they are stored.
        """
        await self._tell(pb.ChatRequest(checkpoint=pb.Checkpoint(continuations=continuations)))

    async def _tell(self, frame: pb.ChatRequest) -> None:
        async with self._writing:
            self._check()
            if self._call is None:
                raise WarmlineError.of(
                    grpc.StatusCode.UNAVAILABLE, "Connecting again; try after that."
                )
            await self._call.write(frame)

    async def allow(
        self,
        approval_id: str,
        *,
        updated_input: Mapping[str, Any] | None = None,
        remember: bool = False,
        answers: Mapping[str, str] | None = None,
    ) -> None:
        """Say yes to an `approval_requested`.

        `updated_input` is given to the tool in place of its own; `remember` asks no more for what is like
        it in this session; `answers`, by the questions' texts, are for a question of the model.
        """
        yes = pb.Allow(remember=remember, answers=answers or {})
        if updated_input is not None:
            yes.updated_input.update(updated_input)
        decision = pb.ApprovalDecision(approval_id=approval_id, allow=yes)
        await self._answer(approval_id, pb.ChatRequest(approval_decision=decision))

    async def deny(self, approval_id: str, message: str = "", *, interrupt: bool = False) -> None:
        """Say no to an `approval_requested`, and why; `interrupt` stops the turn as well."""
        no = pb.Deny(message=message, interrupt=interrupt)
        decision = pb.ApprovalDecision(approval_id=approval_id, deny=no)
        await self._answer(approval_id, pb.ChatRequest(approval_decision=decision))

    async def tool_result(
        self,
        call_id: str,
        text: str,
        *,
        images: Sequence[pb.Media] = (),
        is_error: bool = False,
    ) -> None:
        """Answer a `client_tool_called` with what the tool gave."""
        result = pb.ClientToolResult(call_id=call_id, text=text, images=images, is_error=is_error)
        await self._answer(call_id, pb.ChatRequest(client_tool_result=result))

    async def _answer(self, name: str, frame: pb.ChatRequest) -> None:
        async with self._writing:
            self._check()
            self._answers[name] = frame
            await self._write(frame)

    def _check(self) -> None:
        if self._broken is not None:
            raise self._broken

    async def _write(self, frame: pb.ChatRequest) -> None:
        if self._call is None:
            return  # Connecting again: what waits is sent then.
        try:
            await self._call.write(frame)
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if self._broken is None or (task is not None and task.cancelling()):
                raise
            raise self._broken from None  # Its call was cancelled, not who writes.
        except WarmlineError as error:
            # The reader sees the same end, and decides what comes of it.
            if not (self._reconnect_timeout and passes(error)):
                raise

    async def _connect(self, error: WarmlineError | None) -> None:
        """Open a stream, trying again while that makes sense; raises why it does not."""
        backoff = self._backoff = self._backoff or Backoff(self._reconnect_timeout)
        while True:
            if error is not None and not await backoff.wait(error.retry_after):
                raise error
            if self._leaving:
                raise WarmlineError.of(grpc.StatusCode.CANCELLED, "The conversation was given up.")
            call = ChatCall(self._make_call())
            try:
                first = await call.open(self._opening)
            except WarmlineError as refusal:
                if not self._reconnect_timeout or not passes(refusal):
                    raise
                error = refusal
                # A try that was lost half-way may still have the session.
                self._opening.takeover = True
            except BaseException:
                call.cancel()
                raise
            else:
                break
        self._take_all(first)
        async with self._writing:
            self._call = call
            # What has no name yet may not have arrived.
            for _, frame in list(self._unnamed.values()):
                await self._write(frame)
            for frame in list(self._answers.values()):
                await self._write(frame)

    async def _read(self) -> None:
        try:
            while True:
                error = await self._read_call()
                lost = passes(error) and self._reconnect_timeout and not self._leaving
                if not lost:
                    self._break(error)
                    return
                await self._reconnect(error)
        except WarmlineError as error:
            self._break(error)
        except asyncio.CancelledError:
            self._break(
                WarmlineError.of(grpc.StatusCode.CANCELLED, "The conversation was given up.")
            )
            raise
        except Exception as error:  # noqa: BLE001  # whoever waits must learn of it
            self._break(WarmlineError.of(grpc.StatusCode.INTERNAL, f"The client failed: {error!r}"))

    async def _read_call(self) -> WarmlineError:
        """Take what the stream tells until it ends; gives how."""
        call = self._call
        assert call is not None
        try:
            while events := await call.read():
                self._take_all(events)
            return await call.failure()
        except WarmlineError as error:
            return error

    async def _reconnect(self, error: WarmlineError) -> None:
        async with self._writing:
            assert self._call is not None
            self._call.cancel()
            self._call = None
        for waiting in self._interrupts:
            if not waiting.done():
                waiting.set_exception(error)  # Whether it arrived cannot be known.
        self._interrupts.clear()
        self._detach()
        self._opening = pb.Open(
            session_id=self.session_id,
            after=self._cursor,
            detail=self._opening.detail,
            on_disconnect=self._opening.on_disconnect,
            takeover=True,
        )
        await self._connect(error)

    def _detach(self) -> None:
        """What was being told again is asked for again: no cursor says how far it had come."""
        for key, (turn, frame) in self._attached.items():
            turns = self._turns[turn.id]
            turns.remove(turn)
            if not turns:
                del self._turns[turn.id]
            self._unnamed[key] = (turn, frame)
        self._attached.clear()

    def _take_all(self, events: Sequence[events_pb2.Event]) -> None:
        for event in events:
            self._take(event)
            if event.seq > self._cursor.seq:
                self._cursor.epoch, self._cursor.seq = event.epoch, event.seq
                self._backoff = None

    def _take(self, event: events_pb2.Event) -> None:
        kind = event.WhichOneof("kind")
        if kind == "approval_resolved":
            self._answers.pop(event.approval_resolved.approval_id, None)
        elif kind == "client_tool_returned":
            self._answers.pop(event.client_tool_returned.call_id, None)
        elif kind == "notice":  # It came too late.
            for name in ("approvalId", "callId"):
                self._answers.pop(event.notice.metadata.get(name, ""), None)
        if kind == "session_opened":
            self._open(event.session_opened)
        elif kind == "interrupt_result":
            # None waits for that of an interrupt from before this stream.
            waiting = self._interrupts.popleft() if self._interrupts else None
            if waiting is not None and not waiting.done():
                waiting.set_result(event.interrupt_result)
        elif not (turns := self._turns_of(event)):
            self._note(event)
        else:
            for turn in turns:
                turn.put(event)
            if is_end(event):
                for turn in self._turns.pop(event.turn_id):
                    self._attached.pop(turn.key, None)
            if any(turn.unread_bytes > _UNREAD_BYTES for turn in turns):
                raise WarmlineError.of(
                    grpc.StatusCode.RESOURCE_EXHAUSTED,
                    f"More than {_UNREAD_BYTES} bytes of a turn's events were not read.",
                )

    def _open(self, opened: events_pb2.SessionOpened) -> None:
        self.opened = opened
        if not self._opening.HasField("after"):
            # What was before is of no interest, and a stream that takes over begins after it.
            self._cursor.epoch, self._cursor.seq = opened.epoch, opened.last_seq

    def _note(self, event: events_pb2.Event) -> None:
        self.notices.append(event)
        if event.notice.kind == events_pb2.Notice.KIND_TAKEN_OVER:
            # Connecting again would take it back, and so on for ever.
            self._reconnect_timeout = 0.0

    def _turns_of(self, event: events_pb2.Event) -> list[Turn]:
        """The turns of this conversation that it belongs to: those whose messages' key it names, too.

        They are several where a message was sent again while its turn was still running.
        """
        key = key_of(event)
        if key in self._unnamed:
            turn, frame = self._unnamed.pop(key)
            turn.id = event.turn_id
            if event.HasField("turn_attached"):
                self._attached[key] = (turn, frame)
            self._turns.setdefault(event.turn_id, []).append(turn)
        return self._turns.get(event.turn_id, [])

    def _break(self, error: WarmlineError) -> None:
        if self._broken is not None:
            return
        self._broken = error
        if self._call is not None:
            self._call.cancel()  # Nobody reads it any more.
        named = itertools.chain.from_iterable(self._turns.values())
        for turn in (*named, *(turn for turn, _ in self._unnamed.values())):
            turn.fail(error)
        for waiting in self._interrupts:
            if not waiting.done():
                waiting.set_exception(error)
