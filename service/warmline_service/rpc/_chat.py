"""ChatService on the wire: one reader and one writer for each stream."""

from __future__ import annotations

import asyncio
from typing import Any, TypeVar

import grpc
from warmline.v1 import chat_service_pb2 as pb
from warmline.v1 import chat_service_pb2_grpc as pb_grpc

from warmline_service.chat import Conversation, Conversations, Opening, Stream
from warmline_service.config import LimitSettings
from warmline_service.errors import Reason, WarmlineError, field_invalid
from warmline_service.rpc._deserialize import checked
from warmline_service.rpc._parse import (
    ask_opening_of,
    detail_of,
    kinds_of,
    message_of,
    opening_of,
    session_id_of,
)
from warmline_service.rpc._streaming import (
    Context,
    KeyLocks,
    StreamCount,
    accept,
    deadline,
    flush,
    write,
)
from warmline_service.sessions import UserMessage
from warmline_service.store import Claimed

T = TypeVar("T")


class ChatServicer(pb_grpc.ChatServiceServicer):
    """`ChatService` over the service's conversations."""

    def __init__(
        self, conversations: Conversations, limits: LimitSettings, streams: StreamCount
    ) -> None:
        self._conversations = conversations
        self._limits = limits
        self._streams = streams
        self._keys = KeyLocks()
        self._reads: set[asyncio.Task[Any]] = set()

    async def Chat(  # type: ignore[override]  # reader/writer style; the stub knows iterators only
        self, request_iterator: object, context: Context
    ) -> None:
        """A conversation, both ways; the protocol is in the proto."""
        del request_iterator
        with self._streams.one_more("chat") as tenant:
            await accept(context)
            opening = await self._opening(context)
            conversation, stream = await self._conversations.open(tenant, opening)
            lost = True
            try:
                await self._converse(context, conversation, stream)
                lost = False
            except WarmlineError:
                lost = False
                raise
            finally:
                conversation.detach(stream, lost=lost)

    async def Ask(  # type: ignore[override]  # reader/writer style; the stub knows iterators only
        self, request: pb.AskRequest, context: Context
    ) -> None:
        """One turn."""
        checked(request)
        with self._streams.one_more("chat") as tenant:
            message = message_of(request.message, "message", self._limits.message_bytes)
            opening = ask_opening_of(request)
            # One by one: who asks the same at the same time finds the turn of the first.
            async with self._keys.only(tenant, message.key):
                claimed = await self._conversations.claimed(tenant, message)
                if claimed is None:
                    conversation, stream = await self._conversations.open(tenant, opening)
                    turn_id = await self._say(context, conversation, stream, message)
            if claimed is not None:
                await self._ask_again(
                    context, opening, message, (tenant, claimed, request.after.seq)
                )
                return
            try:
                stream.only(turn_id, opening.detail)
                await accept(context)
                await self._tell(context, stream, pb.AskResponse)
            finally:
                conversation.detach(stream)

    async def Watch(  # type: ignore[override]  # reader/writer style; the stub knows iterators only
        self, request: pb.WatchRequest, context: Context
    ) -> None:
        """A session's events."""
        checked(request)
        with self._streams.one_more("read") as tenant:
            session_id = session_id_of(request.session_id, "session_id")
            if not session_id:
                raise field_invalid("session_id", "must be set")
            stream = await self._conversations.watch(
                tenant,
                session_id,
                request.after.seq,
                detail_of(request.detail, "detail"),
                kinds_of(request.kinds, "kinds"),
                replay_only=request.replay_only,
            )
            try:
                await accept(context)
                await self._tell(context, stream, pb.WatchResponse)
            finally:
                self._conversations.unwatch(stream)

    async def _say(
        self, context: Context, conversation: Conversation, stream: Stream, message: UserMessage
    ) -> str:
        """Submit an Ask's message; its stream is given up where that cannot be."""
        try:
            return await conversation.submit(stream, message, deadline(context))
        except BaseException:
            conversation.detach(stream)
            raise

    async def _ask_again(
        self,
        context: Context,
        opening: Opening,
        message: UserMessage,
        found: tuple[str, Claimed, int],
    ) -> None:
        """The message was sent before: its turn is told, and nothing runs.

        `found` is the tenant, the turn, and the seq after which it is told.
        """
        tenant, claimed, after = found
        if not claimed.turn_id or opening.session_id not in ("", claimed.session_id):
            raise WarmlineError(
                Reason.IDEMPOTENCY_CONFLICT,
                "This idempotency key was used before, for something else.",
                metadata={"sessionId": claimed.session_id, "turnId": claimed.turn_id},
            )
        stream = await self._conversations.follow(
            tenant, claimed, message.key, opening.detail, after
        )
        try:
            await accept(context)
            await self._tell(context, stream, pb.AskResponse)
        finally:
            self._conversations.unwatch(stream)

    async def _opening(self, context: Context) -> Opening:
        frame = await self._first_frame(context)
        if frame is grpc.aio.EOF:
            # A lost client looks the same at first; its cancellation arrives at this line.
            await asyncio.sleep(0)
        checked(frame)
        if not isinstance(frame, pb.ChatRequest) or frame.WhichOneof("frame") != "open":
            raise WarmlineError(
                Reason.FRAME_OUT_OF_ORDER, "The first frame of a Chat must be `open`."
            )
        return opening_of(frame.open)

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

    async def _tell(
        self,
        context: Context,
        stream: Stream,
        response: type[pb.AskResponse] | type[pb.WatchResponse],
    ) -> None:
        """Write a stream until it ends by itself, or the service does."""
        writing: asyncio.Task[None] = asyncio.create_task(write(context, stream, response))
        drained = asyncio.create_task(self._conversations.drained(stream))
        tasks: list[asyncio.Task[Any]] = [writing, drained]
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            await flush(writing, self._limits.flush_timeout)
            if drained.done() and not stream.subscription.complete:
                raise drained.result()
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks)

    async def _converse(self, context: Context, conversation: Conversation, stream: Stream) -> None:
        """Read and write side by side until either ends, then flush and end the call."""
        reading = self._own(asyncio.create_task(self._read(context, conversation, stream)))
        writing: asyncio.Task[None] = asyncio.create_task(write(context, stream, pb.ChatResponse))
        drained = asyncio.create_task(conversation.drained())
        tasks: list[asyncio.Task[Any]] = [writing, drained]
        try:
            await asyncio.wait({reading, *tasks}, return_when=asyncio.FIRST_COMPLETED)
            if reading.done() and reading.exception() is None:
                tasks.append(asyncio.create_task(conversation.quiet()))
                await asyncio.wait({writing, tasks[-1]}, return_when=asyncio.FIRST_COMPLETED)
            stream.subscription.finish(conversation.session.seq)
            await flush(writing, self._limits.flush_timeout)
            if reading.done():
                reading.result()
            if drained.done():
                raise drained.result()
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks)

    async def _read(self, context: Context, conversation: Conversation, stream: Stream) -> None:
        """Take frames until the caller half-closes. Never cancelled: that would break the stream."""
        while (frame := await context.read()) is not grpc.aio.EOF:
            checked(frame)
            assert isinstance(frame, pb.ChatRequest)
            match frame.WhichOneof("frame"):
                case "message":
                    limit = self._limits.message_bytes
                    message = message_of(frame.message, "message", limit)
                    await conversation.submit(stream, message, deadline(context))
                case "interrupt":
                    await conversation.interrupt(stream)
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
