"""ChatService on the wire: one reader and one writer for each stream."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import grpc
from google.protobuf.message import Message
from warmline.v1 import chat_service_pb2 as pb
from warmline.v1 import chat_service_pb2_grpc as pb_grpc

from warmline_service.chat import Conversation, Conversations, Event, Outbox
from warmline_service.config import LimitSettings
from warmline_service.errors import Reason, WarmlineError, field_invalid
from warmline_service.rpc._deserialize import checked
from warmline_service.rpc._interceptors import principal, request_id
from warmline_service.rpc._parse import config_of, detail_of, message_of, session_id_of
from warmline_service.rpc._wire import wire_events

# Most clients take 4 MiB at a time unless told otherwise; what is more goes in several messages.
_BATCH_BYTES = 1024 * 1024
_BATCH_EVENTS = 1000

T = TypeVar("T")
Context = grpc.aio.ServicerContext[Any, Any]


class ChatServicer(pb_grpc.ChatServiceServicer):
    """`ChatService` over the service's conversations."""

    def __init__(self, conversations: Conversations, limits: LimitSettings) -> None:
        self._conversations = conversations
        self._limits = limits
        self._streams: Counter[str] = Counter()
        self._reads: set[asyncio.Task[Any]] = set()

    async def Chat(  # type: ignore[override]  # reader/writer style; the stub knows iterators only
        self, request_iterator: object, context: Context
    ) -> None:
        """A conversation, both ways; the protocol is in the proto."""
        del request_iterator
        with self._stream():
            await _accept(context)
            conversation, outbox = await self._open(context)
            try:
                await self._converse(context, conversation, outbox)
            finally:
                conversation.detach(outbox)

    async def Ask(  # type: ignore[override]  # reader/writer style; the stub knows iterators only
        self, request: pb.AskRequest, context: Context
    ) -> None:
        """One turn."""
        checked(request)
        with self._stream():
            text = message_of(request.message, "message", self._limits.message_bytes)
            conversation, outbox = self._attach(request, "")
            try:
                # Nothing may be awaited before: what an earlier turn says meanwhile is not for this call.
                outbox.turn_id = conversation.submit(text, _deadline(context))
                await _accept(context)
                await self._tell(context, conversation, outbox)
            finally:
                conversation.detach(outbox)

    @contextmanager
    def _stream(self) -> Iterator[None]:
        caller = principal()
        caller.require("chat")
        limit = self._limits.streams_per_tenant
        if self._streams[caller.tenant] >= limit:
            raise WarmlineError(
                Reason.QUOTA_EXCEEDED,
                f"This tenant has {limit} open streams already.",
                metadata={"limit": str(limit), "quota": "streams_per_tenant"},
                retry_after=1.0,
            )
        self._streams[caller.tenant] += 1
        try:
            yield
        finally:
            self._streams[caller.tenant] -= 1
            if not self._streams[caller.tenant]:
                del self._streams[caller.tenant]

    async def _open(self, context: Context) -> tuple[Conversation, Outbox]:
        frame = await self._first_frame(context)
        if frame is grpc.aio.EOF:
            # A lost client looks the same at first; its cancellation arrives at this line.
            await asyncio.sleep(0)
        checked(frame)
        if not isinstance(frame, pb.ChatRequest) or frame.WhichOneof("frame") != "open":
            raise WarmlineError(
                Reason.FRAME_OUT_OF_ORDER, "The first frame of a Chat must be `open`."
            )
        return self._attach(frame.open, "open.")

    def _attach(self, request: pb.Open | pb.AskRequest, prefix: str) -> tuple[Conversation, Outbox]:
        """Check what both kinds of call say of a session, and attach to it."""
        session_id = session_id_of(request.session_id, f"{prefix}session_id")
        config = config_of(request.config, f"{prefix}config", session_id=session_id)
        detail = detail_of(request.detail, f"{prefix}detail")
        conversation = self._conversations.open(principal().tenant, session_id, config)
        return conversation, conversation.attach(detail)

    async def _first_frame(self, context: Context) -> Any:
        reading: asyncio.Task[Any] = self._own(asyncio.create_task(context.read()))
        draining = asyncio.create_task(self._conversations.draining())
        try:
            await asyncio.wait(
                {reading, draining},
                timeout=self._limits.open_timeout,
                return_when=asyncio.FIRST_COMPLETED,
            )
            if reading.done():
                return reading.result()
            if draining.done():
                raise draining.result()
        finally:
            draining.cancel()
        raise WarmlineError(
            Reason.FRAME_OUT_OF_ORDER,
            f"There was no `open` within {self._limits.open_timeout:g} s.",
        )

    async def _tell(self, context: Context, conversation: Conversation, outbox: Outbox) -> None:
        """Write an Ask's events until its turn has ended."""
        writing: asyncio.Task[None] = asyncio.create_task(_write(context, outbox, pb.AskResponse))
        overflowed = asyncio.create_task(outbox.overflowed.wait())
        quiet = asyncio.create_task(conversation.quiet())
        tasks: list[asyncio.Task[Any]] = [writing, overflowed, quiet]
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            await self._flush(outbox, writing)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks)

    async def _flush(self, outbox: Outbox, writing: asyncio.Task[None]) -> None:
        """Write what waits and end the stream; a reader that does not read has had its time."""
        outbox.close()
        if not outbox.overflowed.is_set():
            await asyncio.wait({writing}, timeout=self._limits.flush_timeout)
        if not writing.done():
            raise outbox.overflow()
        writing.result()

    async def _converse(self, context: Context, conversation: Conversation, outbox: Outbox) -> None:
        """Read and write side by side until either ends, then flush and end the call."""
        reading = self._own(asyncio.create_task(self._read(context, conversation)))
        writing: asyncio.Task[None] = asyncio.create_task(_write(context, outbox, pb.ChatResponse))
        drained = asyncio.create_task(conversation.drained())
        overflowed = asyncio.create_task(outbox.overflowed.wait())
        tasks: list[asyncio.Task[Any]] = [writing, drained, overflowed]
        try:
            await asyncio.wait({reading, *tasks}, return_when=asyncio.FIRST_COMPLETED)
            if reading.done() and reading.exception() is None:
                tasks.append(asyncio.create_task(conversation.quiet()))
                await asyncio.wait(
                    {writing, overflowed, tasks[-1]}, return_when=asyncio.FIRST_COMPLETED
                )
            await self._flush(outbox, writing)
            if reading.done():
                reading.result()
            if drained.done():
                raise drained.result()
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks)

    async def _read(self, context: Context, conversation: Conversation) -> None:
        """Take frames until the caller half-closes. Never cancelled: that would break the stream."""
        while (frame := await context.read()) is not grpc.aio.EOF:
            checked(frame)
            assert isinstance(frame, pb.ChatRequest)
            match frame.WhichOneof("frame"):
                case "message":
                    limit = self._limits.message_bytes
                    text = message_of(frame.message, "message", limit)
                    conversation.submit(text, _deadline(context))
                case "interrupt":
                    await conversation.interrupt()
                case "open":
                    raise WarmlineError(Reason.FRAME_OUT_OF_ORDER, "`open` may be sent only once.")
                case _:
                    raise field_invalid(
                        "frame", "is empty, or of a kind this version does not know"
                    )
        await asyncio.sleep(0)

    def _own(self, task: asyncio.Task[T]) -> asyncio.Task[T]:
        """Keep a reader that outlives its call by a moment: gRPC ends its pending read."""
        self._reads.add(task)

        def done(ended: asyncio.Task[T]) -> None:
            self._reads.discard(ended)
            if not ended.cancelled():
                ended.exception()

        task.add_done_callback(done)
        return task


async def _accept(context: Context) -> None:
    await context.send_initial_metadata((("x-request-id", request_id()),))


def _deadline(context: Context) -> float | None:
    left = context.time_remaining()
    return None if left is None else asyncio.get_running_loop().time() + left


async def _write(
    context: Context, outbox: Outbox, response: type[pb.ChatResponse] | type[pb.AskResponse]
) -> None:
    """The stream's only writer: whatever waits travels together."""
    while batch := await outbox.get():
        for message in _messages(batch, response):
            await context.write(message)


def _messages(
    batch: list[Event], response: type[pb.ChatResponse] | type[pb.AskResponse]
) -> Iterator[Message]:
    out, size = response(), 0
    for event in wire_events(batch):
        cost = event.ByteSize() if len(batch) > 1 else 0
        if (size and size + cost > _BATCH_BYTES) or len(out.events) >= _BATCH_EVENTS:
            yield out
            out, size = response(), 0
        out.events.append(event)
        size += cost
    yield out
