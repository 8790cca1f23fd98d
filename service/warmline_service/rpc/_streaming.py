"""From a stream's events to messages on the wire: one writer, which sends together what is ready together."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from typing import Any

import grpc
from google.protobuf.message import Message
from warmline.v1 import chat_service_pb2 as pb

from warmline_service.chat import Stream
from warmline_service.errors import Reason, WarmlineError
from warmline_service.quota import Quota
from warmline_service.rpc._interceptors import principal, request_id
from warmline_service.rpc._wire import fill_event, fill_time, wire_events
from warmline_service.sessions.events import Event, TextDelta
from warmline_service.tenants import group_of

# Most clients take 4 MiB at a time unless told otherwise; what is more goes in several messages.
_BATCH_BYTES = 1024 * 1024
_BATCH_EVENTS = 1000

# What a message that is filled again may have held in all: its strings are freed with it, and not before.
_REFILL_BYTES = 64 * 1024

Context = grpc.aio.ServicerContext[Any, Any]
Response = type[pb.ChatResponse] | type[pb.AskResponse] | type[pb.WatchResponse]


class DeltaMessage:
    """The message of one text delta, filled again for the next: what most of a stream's messages are.

    To make one takes three times as long as to fill in what is new. Nobody may hold it
    while the next is filled, so it is for a stream that waits until each is written.
    """

    def __init__(self, response: Response) -> None:
        self._response = response
        self._place: tuple[str, str, int, str] | None = None
        self._left = 0

    def filled(self, event: Event, body: TextDelta) -> Message:
        """The message of this event, which has this body."""
        place = event.session_id, event.turn_id, event.epoch, event.parent
        # Of any character as much as it may take, and what keeping a string takes.
        self._left -= 4 * len(body.text) + 16
        if place != self._place or self._left < 0:
            self._place, self._left = place, _REFILL_BYTES
            self._whole = self._response()
            self._event = self._whole.events.add()
            fill_event(self._event, event)
            # Looking them up is part of what it takes.
            self._time, self._delta = self._event.time, self._event.text_delta
        else:
            self._event.seq = event.seq
            fill_time(self._time, event.time)
            self._delta.text = body.text
            self._delta.block_index = body.block
        return self._whole


class StreamCount:
    """How many streams each tenant has open."""

    def __init__(self, quota: Quota) -> None:
        self._quota = quota
        self._open: Counter[str] = Counter()

    @asynccontextmanager
    async def one_more(self) -> AsyncIterator[str]:
        """Count a stream of the caller's while it is open; gives the tenant.

        Raises QUOTA_EXCEEDED where there are too many.
        """
        tenant = principal().tenant
        group = group_of(tenant)
        limit = await self._quota.streams(tenant)
        if self._open[tenant] >= limit:
            raise _too_many("streams_per_tenant", limit, "This tenant has")
        if group != tenant and self._open[group] >= self._quota.own_credential_streams:
            all_of_them = "Callers with credentials of their own have"
            most = self._quota.own_credential_streams
            raise _too_many("own_credential_streams", most, all_of_them)
        counted = {tenant, group}
        self._open.update(counted)
        try:
            yield tenant
        finally:
            self._open.subtract(counted)
            for each in counted:
                if not self._open[each]:
                    del self._open[each]


def _too_many(quota: str, limit: int, who_has: str) -> WarmlineError:
    return WarmlineError(
        Reason.QUOTA_EXCEEDED,
        f"{who_has} {limit} open streams already.",
        metadata={"limit": str(limit), "quota": quota},
        retry_after=1.0,
    )


class KeyLocks:
    """Lets one call at a time do something under an idempotency key."""

    def __init__(self) -> None:
        self._locks: dict[tuple[str, str], asyncio.Lock] = {}
        self._users: Counter[tuple[str, str]] = Counter()

    @asynccontextmanager
    async def only(self, tenant: str, key: str) -> AsyncIterator[None]:
        """Wait for those that came before; without a key for nobody."""
        if not key:
            yield
            return
        place = tenant, key
        lock = self._locks.setdefault(place, asyncio.Lock())
        self._users[place] += 1
        try:
            async with lock:
                yield
        finally:
            self._users[place] -= 1
            if not self._users[place]:
                del self._users[place], self._locks[place]


async def accept(context: Context) -> None:
    """Tell the caller that the call is on: what comes after it is not retried by gRPC itself."""
    await context.send_initial_metadata((("x-request-id", request_id()),))


def deadline(context: Context) -> float | None:
    """The call's deadline, as loop time."""
    left = context.time_remaining()
    return None if left is None else asyncio.get_running_loop().time() + left


async def read(context: Context) -> Any:
    """The caller's next frame, or EOF. Not to be cancelled: that would break the stream."""
    frame = await context.read()
    if frame is grpc.aio.EOF:
        # A lost client looks the same at first, and for a fifth of a millisecond where the machine is busy:
        # what asks again at once is answered after the cancellation has arrived.
        await context.read()
    return frame


async def write(context: Context, stream: Stream, response: Response) -> None:
    """The stream's only writer; ends when the stream does. Raises what ends it by force."""
    deltas = DeltaMessage(response)
    while batch := await stream.subscription.get():
        if len(batch) == 1 and type(batch[0].body) is TextDelta:
            await context.write(deltas.filled(batch[0], batch[0].body))
            continue
        for message in _messages(batch, response):
            await context.write(message)


async def flush(writing: asyncio.Task[None], timeout: float) -> None:
    """Wait until a stream that has an end has been written up to it, at most `timeout` seconds."""
    await asyncio.wait({writing}, timeout=timeout)
    if not writing.done():
        raise WarmlineError(
            Reason.SLOW_CONSUMER,
            f"What was left of the stream was not read within {timeout:g} s; it is not lost.",
            retry_after=1.0,
        )
    writing.result()


def _messages(batch: list[Event], response: Response) -> Iterator[Message]:
    out, size = response(), 0
    for event in wire_events(batch):
        cost = event.ByteSize()
        if (size and size + cost > _BATCH_BYTES) or len(out.events) >= _BATCH_EVENTS:
            yield out
            out, size = response(), 0
        out.events.append(event)
        size += cost
    yield out
