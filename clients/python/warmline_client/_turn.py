"""One message, and what comes of it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

from warmline.v1 import events_pb2

from warmline_client._errors import WarmlineError

_ENDS = ("turn_completed", "turn_failed")


class Turn:
    """One message and its events: iterate over it, or wait for `completed()`.

    `key` is the message's idempotency key; `id` is empty until the service has named the turn.
    """

    def __init__(self, key: str) -> None:
        self.key = key
        self.id = ""
        self.unread_bytes = 0
        self._events: asyncio.Queue[tuple[events_pb2.Event | WarmlineError, int]] = asyncio.Queue()
        self._ended = False
        self._seq = 0

    async def __aiter__(self) -> AsyncIterator[events_pb2.Event]:
        """The events up to `turn_completed` or `turn_failed`; raises only when the conversation breaks."""
        while not self._ended:
            event, size = await self._events.get()
            self.unread_bytes -= size
            if isinstance(event, WarmlineError):
                self._ended = True
                raise event
            self._ended = event.WhichOneof("kind") in _ENDS
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

    def put(self, event: events_pb2.Event) -> bool:
        """Add an event, for the conversation; False for one that has been here already."""
        if event.seq:
            if event.seq <= self._seq:
                return False
            self._seq = event.seq
        size = event.ByteSize()
        self.unread_bytes += size
        self._events.put_nowait((event, size))
        return True

    def fail(self, error: WarmlineError) -> None:
        """There will be no more events, for the conversation."""
        self._events.put_nowait((error, 0))


def is_end(event: events_pb2.Event) -> bool:
    """Whether this is a turn's one end."""
    return event.WhichOneof("kind") in _ENDS


def key_of(event: events_pb2.Event) -> str:
    """The idempotency key by which an event names a turn; empty where it does not."""
    match event.WhichOneof("kind"):
        case "turn_queued":
            return event.turn_queued.idempotency_key
        case "turn_attached":
            return event.turn_attached.idempotency_key
        case "turn_failed" if not event.seq:
            # A stored one comes again, with what was before it, when the message is sent again.
            return event.turn_failed.idempotency_key
    return ""
