"""ChatService on the wire: one reader and one writer for each stream."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

import grpc
from warmline.v1 import chat_service_pb2 as pb
from warmline.v1 import chat_service_pb2_grpc as pb_grpc

from warmline_service.chat import Conversation, Conversations, Opening, Stream
from warmline_service.config import LimitSettings
from warmline_service.errors import Reason, WarmlineError, field_invalid
from warmline_service.rpc._deserialize import checked
from warmline_service.rpc._interceptors import principal
from warmline_service.rpc._parse import (
    ask_opening_of,
    detail_of,
    is_brief,
    kinds_of,
    message_of,
    names_of,
    opening_of,
    session_id_of,
)
from warmline_service.rpc._parse_answers import decision_of, tool_answer_of, update_of
from warmline_service.rpc._parse_credential import opening_paid_by
from warmline_service.rpc._streaming import (
    Context,
    KeyLocks,
    Response,
    StreamCount,
    accept,
    deadline,
    flush,
    read,
    write,
)
from warmline_service.sessions import UserMessage
from warmline_service.store import Claimed

T = TypeVar("T")
R = TypeVar("R", pb.Open, pb.AskRequest)


class ChatServicer(pb_grpc.ChatServiceServicer):
    """`ChatService` over the service's conversations."""

    def __init__(
        self, conversations: Conversations, limits: LimitSettings, streams: StreamCount
    ) -> None:
        self._conversations = conversations
        self._observers = conversations.observers
        self._limits = limits
        self._streams = streams
        self._keys = KeyLocks()
        self._reads: set[asyncio.Task[Any]] = set()

    async def Chat(  # type: ignore[override]  # reader/writer style; the stub knows iterators only
        self, request_iterator: object, context: Context
    ) -> None:
        """A conversation, both ways; the protocol is in the proto."""
        del request_iterator
        async with self._streams.one_more() as tenant:
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
        async with self._streams.one_more() as tenant:
            message = message_of(request.message, "message", self._limits.message_bytes)
            opening = await _checked(ask_opening_of, request)
            opening = opening_paid_by(principal(), opening)
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
        async with self._streams.one_more() as tenant:
            session_id = session_id_of(request.session_id, "session_id")
            if not session_id:
                raise field_invalid("session_id", "must be set")
            stream = await self._observers.watch(
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
                self._observers.unwatch(stream)

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
        stream = await self._observers.follow(tenant, claimed, message.key, opening.detail, after)
        try:
            await accept(context)
            await self._tell(context, stream, pb.AskResponse)
        finally:
            self._observers.unwatch(stream)

    async def _opening(self, context: Context) -> Opening:
        frame = await self._first_frame(context)
        checked(frame)
        if not isinstance(frame, pb.ChatRequest) or frame.WhichOneof("frame") != "open":
            raise WarmlineError(
                Reason.FRAME_OUT_OF_ORDER, "The first frame of a Chat must be `open`."
            )
        opening = await _checked(opening_of, frame.open)
        return opening_paid_by(principal(), opening)

    async def _first_frame(self, context: Context) -> Any:
        reading: asyncio.Task[Any] = self._own(asyncio.create_task(read(context)))
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
        response: Response,
        over: Coroutine[Any, Any, None] | None = None,
    ) -> None:
        """Write a stream until it ends by itself, by `over`, or with the service."""
        writing: asyncio.Task[None] = asyncio.create_task(write(context, stream, response))
        ending = asyncio.create_task(over) if over is not None else None
        drained = asyncio.create_task(self._conversations.drained(stream))
        tasks: list[asyncio.Task[Any]] = [each for each in (writing, ending, drained) if each]
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            await flush(writing, self._limits.flush_timeout)
            if ending is not None and ending.done():
                ending.result()
            if drained.done() and not stream.subscription.complete:
                raise drained.result()
        finally:
            for task in tasks:
                task.cancel()
            # What ended the call has been said; what the others failed with meanwhile is of no use.
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _converse(self, context: Context, conversation: Conversation, stream: Stream) -> None:
        """Read and write side by side until either ends, then flush and end the call."""
        reading = self._own(asyncio.create_task(self._read(context, conversation, stream)))
        over = self._heard_out(reading, conversation, stream)
        await self._tell(context, stream, pb.ChatResponse, over)

    async def _heard_out(
        self, reading: asyncio.Task[None], conversation: Conversation, stream: Stream
    ) -> None:
        """Wait until the caller has half-closed and every turn has ended, or a frame was refused.

        The stream gets its end then. Raises what the frame was refused with.
        """
        await asyncio.wait({reading})
        if not reading.cancelled() and reading.exception() is None:
            await conversation.quiet()
        stream.subscription.finish(conversation.session.seq)
        reading.result()

    async def _read(self, context: Context, conversation: Conversation, stream: Stream) -> None:
        """Take frames until the caller half-closes. Never cancelled: that would break the stream."""
        while (frame := await read(context)) is not grpc.aio.EOF:
            checked(frame)
            assert isinstance(frame, pb.ChatRequest)
            match frame.WhichOneof("frame"):
                case "message":
                    limit = self._limits.message_bytes
                    message = message_of(frame.message, "message", limit)
                    await conversation.submit(stream, message, deadline(context), counted=True)
                case "interrupt":
                    await conversation.interrupt(stream)
                case "update":
                    await conversation.update(stream, update_of(frame.update, "update"))
                case "checkpoint":
                    await conversation.checkpoint(stream, names_of(frame.checkpoint, "checkpoint"))
                case "approval_decision":
                    self._decide(conversation, stream, frame.approval_decision)
                case "client_tool_result":
                    conversation.settle(
                        *tool_answer_of(frame.client_tool_result, "client_tool_result"), stream
                    )
                case "open":
                    raise WarmlineError(Reason.FRAME_OUT_OF_ORDER, "`open` may be sent only once.")
                case _:
                    raise field_invalid(
                        "frame", "is empty, or of a kind this version does not know"
                    )

    def _decide(
        self, conversation: Conversation, stream: Stream, frame: pb.ApprovalDecision
    ) -> None:
        approval_id, decision = decision_of(frame, "approval_decision", self._limits.message_bytes)
        try:
            conversation.decide(approval_id, decision, stream)
        except WarmlineError as error:
            if error.reason is not Reason.APPROVAL_NOT_FOUND:
                raise
            stream.warn("approval_unknown", error.message, approvalId=approval_id)

    def _own(self, task: asyncio.Task[T]) -> asyncio.Task[T]:
        """Keep a reader that outlives its call by a moment: gRPC ends its pending read."""
        self._reads.add(task)

        def done(ended: asyncio.Task[T]) -> None:
            self._reads.discard(ended)
            if not ended.cancelled():
                ended.exception()

        task.add_done_callback(done)
        return task


async def _checked(check: Callable[[R], Opening], request: R) -> Opening:
    """What a request asks for; a change of threads takes longer than to check what most callers send."""
    if is_brief(request):
        return check(request)
    return await asyncio.to_thread(check, request)
