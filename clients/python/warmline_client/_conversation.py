"""A Chat stream, seen as a conversation of turns."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator
from types import TracebackType
from typing import Any, Self

import grpc
from google.rpc import status_pb2
from warmline.v1 import chat_service_pb2 as pb
from warmline.v1 import events_pb2

from warmline_client._errors import WarmlineError, from_rpc_error

# How long leaving a conversation waits for the service to end the stream, in seconds.
_CLOSE_TIMEOUT = 5.0
# How many bytes of a turn's events may wait to be read; with more the conversation breaks.
_UNREAD_BYTES = 256 * 1024 * 1024


class Turn:
    """One message and its events: iterate over it, or wait for `completed()`."""

    def __init__(self) -> None:
        self.id = ""
        self.unread_bytes = 0
        self._events: asyncio.Queue[tuple[events_pb2.Event | WarmlineError, int]] = asyncio.Queue()
        self._ended = False

    async def __aiter__(self) -> AsyncIterator[events_pb2.Event]:
        """The events up to `turn_completed` or `turn_failed`; raises only when the stream breaks."""
        while not self._ended:
            event, size = await self._events.get()
            self.unread_bytes -= size
            if isinstance(event, WarmlineError):
                self._ended = True
                raise event
            self._ended = event.WhichOneof("kind") in ("turn_completed", "turn_failed")
            yield event

    async def text(self) -> AsyncIterator[str]:
        """The answer's text as it is written; raises WarmlineError when the turn fails."""
        async for event in self:
            if event.HasField("text_delta") and not event.parent_tool_call_id:
                yield event.text_delta.text
            if event.HasField("turn_failed"):
                raise WarmlineError(event.turn_failed.status)

    async def completed(self) -> events_pb2.TurnCompleted:
        """Wait for the end; raises WarmlineError when the turn fails."""
        async for event in self:
            if event.HasField("turn_completed"):
                return event.turn_completed
            if event.HasField("turn_failed"):
                raise WarmlineError(event.turn_failed.status)
        raise RuntimeError("the turn's events were read already")

    def put(self, event: events_pb2.Event | WarmlineError) -> None:
        """Add an event; for the conversation."""
        size = 0 if isinstance(event, WarmlineError) else event.ByteSize()
        self.unread_bytes += size
        self._events.put_nowait((event, size))


class Conversation:
    """An async context manager: `send` messages, `interrupt` turns.

    `opened` tells the session's id and how it was had; `notices` are the events of the session
    itself and of turns from before this stream, newest last, at most 100. Events wait to be read:
    where those of one turn come to more than 256 MiB, the conversation breaks.
    """

    def __init__(self, call: Any, opening: pb.Open) -> None:
        self._call = call
        self._opening = opening
        self.opened = events_pb2.SessionOpened()
        self.notices: deque[events_pb2.Event] = deque(maxlen=100)
        self._turns: dict[str, Turn] = {}
        self._unnamed: deque[Turn] = deque()
        self._interrupts: deque[asyncio.Future[events_pb2.InterruptResult]] = deque()
        # A call takes one write at a time, and what waits is in the order of the writes.
        self._writing = asyncio.Lock()
        self._reader: asyncio.Task[None] | None = None
        self._broken: WarmlineError | None = None

    async def __aenter__(self) -> Self:
        try:
            # Before the first write: a refusal that comes while writing reaches the caller garbled.
            await self._call.initial_metadata()
            await self._call.write(pb.ChatRequest(open=self._opening))
            first = await self._call.read()
            if first is grpc.aio.EOF:
                raise await self._failure()
        except grpc.aio.AioRpcError as error:
            raise from_rpc_error(error) from error
        except asyncio.InvalidStateError:
            raise await self._failure() from None
        for event in first.events:
            self._take(event)
        self._reader = asyncio.create_task(self._read())
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        assert self._reader is not None
        if kind is None and self._broken is None:
            await self._call.done_writing()
            await asyncio.wait({self._reader}, timeout=_CLOSE_TIMEOUT)
        self._call.cancel()
        self._reader.cancel()
        await asyncio.wait({self._reader})

    def cancel(self) -> None:
        """Give the stream up at once; a turn that runs goes on in the service."""
        self._call.cancel()

    @property
    def session_id(self) -> str:
        """Names the session, to go on with it later."""
        return self.opened.session_id

    @property
    def broken(self) -> bool:
        """The stream has ended; connect again to go on."""
        return self._broken is not None

    async def send(self, text: str) -> Turn:
        """Say something; the turn's events come from what is returned."""
        turn = Turn()
        async with self._writing:
            self._unnamed.append(turn)
            await self._write(pb.ChatRequest(message=pb.UserMessage(text=text)))
        return turn

    async def interrupt(self) -> events_pb2.InterruptResult:
        """Stop the running turn and say what happened."""
        result: asyncio.Future[events_pb2.InterruptResult]
        result = asyncio.get_running_loop().create_future()
        async with self._writing:
            self._interrupts.append(result)
            try:
                await self._write(pb.ChatRequest(interrupt=pb.Interrupt()))
            except BaseException:
                result.cancel()  # Nobody waits for it.
                raise
        return await result

    async def _write(self, frame: pb.ChatRequest) -> None:
        if self._broken is not None:
            raise self._broken
        try:
            await self._call.write(frame)
        except grpc.aio.AioRpcError as error:
            raise from_rpc_error(error) from error
        except asyncio.InvalidStateError:
            raise await self._failure() from None

    async def _read(self) -> None:
        try:
            while (response := await self._call.read()) is not grpc.aio.EOF:
                for event in response.events:
                    self._take(event)
            self._break(await self._failure())
        except grpc.aio.AioRpcError as error:
            self._break(from_rpc_error(error))
        except WarmlineError as error:
            self._break(error)
        except asyncio.CancelledError:
            self._break(_error(grpc.StatusCode.CANCELLED, "The conversation was given up."))
            raise
        except Exception as error:  # noqa: BLE001  # whoever waits must learn of it
            self._break(_error(grpc.StatusCode.INTERNAL, f"The client failed: {error!r}"))

    def _take(self, event: events_pb2.Event) -> None:
        kind = event.WhichOneof("kind")
        if kind == "session_opened":
            self.opened = event.session_opened
        elif kind == "interrupt_result":
            # None waits for that of an interrupt from before this stream.
            waiting = self._interrupts.popleft() if self._interrupts else None
            if waiting is not None and not waiting.done():
                waiting.set_result(event.interrupt_result)
        elif (turn := self._turn_of(event)) is None:
            self.notices.append(event)
        else:
            turn.put(event)
            if kind in ("turn_completed", "turn_failed"):
                del self._turns[event.turn_id]
            if turn.unread_bytes > _UNREAD_BYTES:
                raise _error(
                    grpc.StatusCode.RESOURCE_EXHAUSTED,
                    f"More than {_UNREAD_BYTES} bytes of a turn's events were not read.",
                )

    def _turn_of(self, event: events_pb2.Event) -> Turn | None:
        """The turn of this stream that it belongs to, if any.

        Turns get their first event in the order of their messages, so it names the oldest unnamed one.
        Any other event with an unknown id is of a turn from before this stream.
        """
        turn = self._turns.get(event.turn_id)
        if turn is None and event.turn_id and self._unnamed and _is_first(event):
            turn = self._turns[event.turn_id] = self._unnamed.popleft()
            turn.id = event.turn_id
        return turn

    def _break(self, error: WarmlineError) -> None:
        if self._broken is not None:
            return
        self._broken = error
        self._call.cancel()  # Nobody reads it any more.
        for turn in (*self._turns.values(), *self._unnamed):
            turn.put(error)
        for waiting in self._interrupts:
            if not waiting.done():
                waiting.set_exception(error)

    async def _failure(self) -> WarmlineError:
        code = await self._call.code()
        return from_rpc_error(
            grpc.aio.AioRpcError(
                code,
                await self._call.initial_metadata(),
                await self._call.trailing_metadata(),
                details=await self._call.details(),
            )
        )


def _is_first(event: events_pb2.Event) -> bool:
    """A turn begins by being queued, or by a refusal, which took no time."""
    refused = event.HasField("turn_failed") and not event.turn_failed.HasField("latency")
    return refused or event.HasField("turn_queued")


def _error(code: grpc.StatusCode, message: str) -> WarmlineError:
    return WarmlineError(status_pb2.Status(code=code.value[0], message=message))
