"""The connection to the gRPC service: channels, stubs, and calls whose failures are the shim's own."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable, Sequence
from typing import Any

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc
from warmline.v1 import (
    audit_service_pb2_grpc,
    chat_service_pb2_grpc,
    model_service_pb2_grpc,
    session_service_pb2_grpc,
    usage_service_pb2_grpc,
)
from warmline.v1 import chat_service_pb2 as chat_pb
from warmline.v1 import events_pb2 as events_pb

from warmline_http._caller import Metadata
from warmline_http._failure import Failure, within
from warmline_http._settings import HttpSettings

_MESSAGE_BYTES = 128 * 1024 * 1024
_OPTIONS = [
    ("grpc.max_receive_message_length", _MESSAGE_BYTES),
    ("grpc.max_send_message_length", _MESSAGE_BYTES),
    # Otherwise every channel to one address would share a connection.
    ("grpc.use_local_subchannel_pool", 1),
]
# gRPC's own words where it has lost a call's status.
_STATUS_LOST = "Internal error from Core"
# A peer that is gone without a word; on one machine there are none.
_KEEPALIVE = [("grpc.keepalive_time_ms", 30_000), ("grpc.keepalive_timeout_ms", 10_000)]


class _Channel:
    """A connection and its stubs."""

    def __init__(self, channel: grpc.aio.Channel) -> None:
        self.channel = channel
        self.calls = 0
        self.chat = chat_service_pb2_grpc.ChatServiceStub(channel)
        self.sessions = session_service_pb2_grpc.SessionServiceStub(channel)
        self.models = model_service_pb2_grpc.ModelServiceStub(channel)
        self.usage = usage_service_pb2_grpc.UsageServiceStub(channel)
        self.audit = audit_service_pb2_grpc.AuditServiceStub(channel)
        self.health = health_pb2_grpc.HealthStub(channel)


class Link:
    """As many connections as its calls need; `aclose` last."""

    def __init__(self, settings: HttpSettings) -> None:
        self._settings = settings
        ca = settings.target_ca.read_bytes() if settings.target_ca is not None else None
        self._credentials = grpc.ssl_channel_credentials(ca) if ca is not None else None
        self._channels: list[_Channel] = []

    async def aclose(self) -> None:
        """Close every connection; turns that run go on in the service."""
        await asyncio.gather(*(each.channel.close() for each in self._channels))

    async def unary(
        self, service: str, method: str, request: Any, metadata: Metadata, timeout: float = 0.0
    ) -> Any:
        """Make a call of a service (`sessions`, `models`, `usage`, `audit`, `health`); raises Failure.

        `timeout` in seconds, by default that of the settings.
        """
        stub = getattr(self._free(), service)
        seconds = timeout or self._settings.call_timeout
        try:
            return await getattr(stub, method)(request, metadata=metadata, timeout=seconds)
        except grpc.aio.AioRpcError as error:
            raise Failure.of_call(error) from error

    async def serving(self) -> bool:
        """Whether the service can be reached and takes calls."""
        request = health_pb2.HealthCheckRequest()
        try:
            answer = await self.unary("health", "Check", request, (), timeout=2.0)
        except Failure:
            return False
        return bool(answer.status == health_pb2.HealthCheckResponse.SERVING)

    async def stream(
        self, service: str, method: str, request: Any, metadata: Metadata
    ) -> AsyncGenerator[Any, None]:
        """The answers of a call that streams them; raises Failure. Close it with `aclosing`."""
        channel = self._free()
        call = getattr(getattr(channel, service), method)(request, metadata=metadata)
        self._count(channel, call)
        try:
            async for answer in call:
                yield answer
        except grpc.aio.AioRpcError as error:
            raise Failure.of_call(error) from error
        finally:
            call.cancel()

    async def upload(
        self, service: str, method: str, requests: Iterable[Any], metadata: Metadata
    ) -> Any:
        """The answer to a call that takes many messages; raises Failure."""
        channel, seconds = self._free(), self._settings.call_timeout
        call = getattr(getattr(channel, service), method)(metadata=metadata, timeout=seconds)
        self._count(channel, call)
        try:
            # Before the first write: a refusal that comes while writing reaches the caller garbled.
            await call.initial_metadata()
            for request in requests:
                await call.write(request)
            await call.done_writing()
            return await call
        except grpc.aio.AioRpcError as error:
            raise Failure.of_call(error) from error
        except asyncio.InvalidStateError:
            raise await _failure_of(call) from None
        finally:
            call.cancel()

    async def chat(
        self, metadata: Metadata, opening: chat_pb.Open, *more: chat_pb.ChatRequest
    ) -> tuple[Chat, list[events_pb.Event]]:
        """A Chat stream that begins with an `open` and these frames, and its first events; raises Failure."""
        frames = (chat_pb.ChatRequest(open=opening), *more)
        try:
            return await self._begun(metadata, frames, Chat.begin)
        except Failure as failure:
            if failure.message != _STATUS_LOST:
                raise
            return await self._begun(metadata, frames, Chat.begin_slowly)

    async def _begun(
        self,
        metadata: Metadata,
        frames: Sequence[chat_pb.ChatRequest],
        begin: Callable[[Chat, Sequence[chat_pb.ChatRequest]], Awaitable[list[events_pb.Event]]],
    ) -> tuple[Chat, list[events_pb.Event]]:
        channel = self._free()
        call = channel.chat.Chat(metadata=metadata)
        self._count(channel, call)
        chat = Chat(call, self._settings.call_timeout)
        try:
            return chat, await begin(chat, frames)
        except BaseException:
            chat.close()
            raise

    async def events(self, method: str, request: Any, metadata: Metadata) -> Events:
        """A call that tells events (`Ask`, `Watch`), once the service has taken it; raises Failure."""
        channel = self._free()
        call = getattr(channel.chat, method)(request, metadata=metadata)
        self._count(channel, call)
        events = Events(call, self._settings.call_timeout)
        try:
            await events.taken()
        except BaseException:
            events.close()
            raise
        return events

    def _free(self) -> _Channel:
        for channel in self._channels:
            if channel.calls < self._settings.calls_per_connection:
                return channel
        target, credentials = self._settings.target, self._credentials
        options = _OPTIONS if target.startswith("unix:") else _OPTIONS + _KEEPALIVE
        if credentials is None:
            made = grpc.aio.insecure_channel(target, options=options)
        else:
            made = grpc.aio.secure_channel(target, credentials, options=options)
        self._channels.append(_Channel(made))
        return self._channels[-1]

    def _count(self, channel: _Channel, call: Any) -> None:
        channel.calls += 1

        def done(ended: object) -> None:
            del ended
            channel.calls -= 1

        call.add_done_callback(done)


class Events:
    """A stream of events. One reader; `close` gives it up, and no turn with it."""

    def __init__(self, call: Any, timeout: float) -> None:
        self._call = call
        self._timeout = timeout

    async def taken(self) -> None:
        """Wait until the service has taken the call. Raises Failure where it refuses it."""
        async with within(self._timeout):
            await self._call.initial_metadata()
            refused = self._call.done() and await self._call.code() is not grpc.StatusCode.OK
        if refused:
            raise await _failure_of(self._call)

    async def read(self) -> Sequence[events_pb.Event]:
        """The next events, those that came together; empty at the good end. Raises Failure."""
        try:
            answer = await self._call.read()
        except grpc.aio.AioRpcError as error:
            raise Failure.of_call(error) from error
        if answer is not grpc.aio.EOF:
            return list(answer.events)
        if await self._call.code() is not grpc.StatusCode.OK:
            raise await _failure_of(self._call)
        return ()

    def close(self) -> None:
        """Give the stream up at once. Idempotent."""
        self._call.cancel()


class Chat(Events):
    """One Chat stream. One reader, and one writer at a time."""

    async def begin(self, frames: Sequence[chat_pb.ChatRequest]) -> list[events_pb.Event]:
        """Send the first frames at once; gives the first events. Raises Failure.

        A refusal that comes while a frame is written loses its reason on the way (grpc#36066), and is told
        by the words of `_STATUS_LOST`.
        """
        async with within(self._timeout):
            for frame in frames:
                await self.send(frame)
            return await self._first()

    async def begin_slowly(self, frames: Sequence[chat_pb.ChatRequest]) -> list[events_pb.Event]:
        """The same, each frame when the service has taken what came before: no reason is lost."""
        async with within(self._timeout):
            await self.taken()
            await self.send(frames[0])
            first = await self._first()
            for frame in frames[1:]:
                await self.send(frame)
            return first

    async def _first(self) -> list[events_pb.Event]:
        first = await self.read()
        if not first:
            raise Failure.stream_ended()
        return list(first)

    async def send(self, frame: chat_pb.ChatRequest) -> None:
        """Send a frame. Raises Failure."""
        try:
            await self._call.write(frame)
        except grpc.aio.AioRpcError as error:
            raise Failure.of_call(error) from error
        except asyncio.InvalidStateError:
            raise await _failure_of(self._call) from None

    async def half_close(self) -> None:
        """Say that nothing more will be sent; the stream ends when what runs has. Raises Failure."""
        try:
            await self._call.done_writing()
        except grpc.aio.AioRpcError as error:
            raise Failure.of_call(error) from error
        except asyncio.InvalidStateError:
            raise await _failure_of(self._call) from None


async def _failure_of(call: Any) -> Failure:
    """How a call ended that has."""
    return Failure.of_call(
        grpc.aio.AioRpcError(
            await call.code(),
            await call.initial_metadata(),
            await call.trailing_metadata(),
            details=await call.details(),
        )
    )
