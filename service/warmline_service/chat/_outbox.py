"""The events that wait for one stream's reader: bounded, so that a slow reader slows no turn."""

from __future__ import annotations

import asyncio
from collections import deque
from dataclasses import replace

from warmline_service.chat.events import (
    BLOCK_EVENTS,
    Body,
    Delta,
    Detail,
    Event,
    Message,
    Raw,
    TextBlock,
    TextDelta,
    ThinkingBlock,
    ThinkingDelta,
    ToolCall,
    ToolInputDelta,
    ToolResult,
    TurnCompleted,
)
from warmline_service.errors import Reason, WarmlineError

# From so many waiting events on, a delta is joined to the one before it where both are of one block.
_COALESCE_FROM = 64
# A joined delta grows no further than this, so that joining stays linear.
_COALESCE_CHARS = 16 * 1024
_EVENT_COST = 200


class Outbox:
    """A queue with one reader; `put` never waits. Sizes are estimates in bytes of memory.

    `overflowed` is set when the reader was too slow; nothing more will come then. With a `turn_id`
    only that turn's events and the session's own are taken.
    """

    def __init__(self, detail: Detail, limit: int) -> None:
        self._detail = detail
        self._limit = limit
        self._events: deque[Event] = deque()
        self._size = 0
        self._ready = asyncio.Event()
        self._closed = False
        self.overflowed = asyncio.Event()
        self.turn_id: str | None = None

    def put(self, event: Event) -> None:
        """Queue an event, unless the stream does not want its kind or was too slow already."""
        if self._closed or self.overflowed.is_set() or not self._wants(event):
            return
        cost = _cost(event.body)
        if self._size + cost > self._limit:
            self.overflowed.set()
            self._events.clear()
        elif not self._joined(event):
            self._events.append(event)
        self._size += cost
        self._ready.set()

    def close(self) -> None:
        """No more events: the reader gets what is queued and then the end."""
        self._closed = True
        self._ready.set()

    async def get(self) -> list[Event]:
        """All that waits, at least one event; empty when closed. Raises SLOW_CONSUMER."""
        await self._ready.wait()
        if self.overflowed.is_set():
            raise self.overflow()
        events = list(self._events)
        self._events.clear()
        self._size = 0
        if not self._closed:
            self._ready.clear()
        return events

    def overflow(self) -> WarmlineError:
        """What a reader is told that was too slow."""
        return WarmlineError(
            Reason.SLOW_CONSUMER,
            "The stream was read too slowly; its buffer on the server is full.",
            metadata={"limitBytes": str(self._limit)},
            retry_after=1.0,
        )

    def _wants(self, event: Event) -> bool:
        body = event.body
        if self.turn_id is not None and event.turn_id not in ("", self.turn_id):
            return False
        return self._detail > Detail.TEXT or not isinstance(body, BLOCK_EVENTS)

    @property
    def detail(self) -> Detail:
        """How much the stream is told."""
        return self._detail

    def _joined(self, event: Event) -> bool:
        if len(self._events) < _COALESCE_FROM:
            return False
        last = self._events[-1]
        old, new = last.body, event.body
        if not isinstance(old, Delta) or not isinstance(new, Delta) or type(old) is not type(new):
            return False
        same = (last.turn_id, last.parent, old.block) == (event.turn_id, event.parent, new.block)
        if not same or len(old.text) >= _COALESCE_CHARS:
            return False
        self._events[-1] = replace(event, body=replace(old, text=old.text + new.text))
        return True


def _cost(body: Body) -> int:
    match body:
        case TextDelta(text) | ThinkingDelta(text) | ToolInputDelta(text):
            return _EVENT_COST + len(text)
        case Message(content=content):
            return _EVENT_COST + sum(
                len(block.text) if isinstance(block, TextBlock | ThinkingBlock) else block.size
                for block in content
            )
        case ToolCall(size=size):
            return _EVENT_COST + size
        case ToolResult(text=text) | Raw(json=text) | TurnCompleted(result=text):
            return _EVENT_COST + len(text)
    return _EVENT_COST
