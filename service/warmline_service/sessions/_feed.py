"""A session's latest events in memory, and the streams that read them."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from warmline_service.errors import WarmlineError
from warmline_service.sessions.events import (
    AgentEvent,
    ApprovalRequested,
    ClientToolCalled,
    DebugLog,
    Delta,
    Event,
    Message,
    Raw,
    TextBlock,
    TextDelta,
    ThinkingBlock,
    ToolCall,
    ToolResult,
    TurnCompleted,
    joined,
    kind_of,
)
from warmline_service.store import TURN_ENDS

_EVENT_COST = 300
# How often a stream looks for events that another server stores, in seconds.
_POLL = 1.0


class Read(Protocol):
    """Reads a page of stored events after a seq: of one turn, if it is named."""

    def __call__(self, after: int, turn_id: str = "") -> Awaitable[list[Event]]:
        """An empty page is the end."""
        ...


class Feed:
    """What has been stored of one session's events lately.

    Every event with a seq above `floor` is in memory, or has not been stored yet; those up to `floor` are
    in the store alone. It is None until the first event, or until a reader has found the store's last.
    While nobody reads, nothing is kept.
    """

    def __init__(self, limit: int, *, local: bool, floor: int | None = None) -> None:
        self.floor = floor
        # Whether nobody else writes the session; otherwise readers have to look in the store.
        self.local = local
        # The epoch of the lease under which this service writes it, where it does.
        self.epoch = 0
        self._limit = limit
        self._events: deque[Event] = deque()
        self._size = 0
        self._readers: set[Subscription] = set()

    @property
    def watched(self) -> bool:
        """Whether any stream reads it."""
        return bool(self._readers)

    @property
    def raw(self) -> bool:
        """Whether any stream wants every line of the CLI."""
        return any(reader.raw for reader in self._readers)

    def publish(self, events: Sequence[Event]) -> None:
        """Tell of events that have been stored."""
        if not self._readers:
            self.floor = events[-1].seq
            self._events.clear()
            self._size = 0
            return
        if self.floor is None:
            self.floor = events[0].seq - 1
        for event in events:
            self._events.append(event)
            self._size += _cost(event)
        while self._size > self._limit:
            dropped = self._events.popleft()
            self._size -= _cost(dropped)
            self.floor = max(self.floor, dropped.seq)
        self.wake()

    def after(self, seq: int) -> list[Event]:
        """The events after `seq`, which must not be below `floor`."""
        new: list[Event] = []
        for event in reversed(self._events):
            if event.seq <= seq:
                break
            new.append(event)
        new.reverse()
        return new

    def begin(self, floor: int) -> None:
        """From now on this service writes the session, whose last event has this seq."""
        self._events.clear()
        self._size = 0
        self.floor, self.local = floor, True
        self.wake()

    def found_end(self, seq: int) -> None:
        """A reader found nothing in the store after `seq`."""
        if self.floor is None:
            self.floor = seq

    def wake(self) -> None:
        """Let every stream look again."""
        for reader in self._readers:
            reader.wake()

    def fail(self, error: WarmlineError) -> None:
        """End every stream with an error."""
        for reader in tuple(self._readers):
            reader.fail(error)

    def add(self, reader: Subscription) -> None:
        """A stream begins to read."""
        self._readers.add(reader)

    def remove(self, reader: Subscription) -> None:
        """A stream reads no more."""
        self._readers.discard(reader)
        if not self._readers and self._events:
            self.floor = self._events[-1].seq
            self._events.clear()
            self._size = 0


@dataclass
class _Replay:
    """A turn that is to be told from its beginning, up to where the stream is when that begins."""

    turn_id: str
    upto: int | None = None
    after: int = 0


class Subscription:
    """One stream's place in a session's events. It holds a cursor and no events, so a slow reader costs
    nothing: what has left the memory meanwhile is read from the store.

    `wants` says which events the stream is told; `read` reads a page from the store, after a seq.
    """

    def __init__(
        self,
        feed: Feed,
        read: Read,
        cursor: int,
        wants: Callable[[Event], bool],
        *,
        raw: bool = False,
    ) -> None:
        self.raw = raw
        self._feed = feed
        self._read = read
        self._cursor = cursor
        self._wants = wants
        self._own: deque[Event | _Replay] = deque()
        # Set by whoever has something new, so that nothing is overlooked that comes while it looks.
        self._woken = False
        self._waiter: asyncio.Future[None] | None = None
        self._last: int | None = None
        self._last_turn = ""
        self._ended = False
        self._until_empty = False
        self._error: WarmlineError | None = None
        feed.add(self)

    @property
    def cursor(self) -> int:
        """The seq of the last event that was taken."""
        return self._cursor

    def tell(self, *events: Event) -> None:
        """Give events to this stream alone, before what follows."""
        self._own.extend(events)
        self.wake()

    def replay(self, turn_id: str) -> None:
        """Give a turn's events from its first, before what follows; later ones come by themselves."""
        self._own.append(_Replay(turn_id))
        self.wake()

    def finish(self, last: int) -> None:
        """End after the event with this seq."""
        self._last = last
        self.wake()

    def finish_when_empty(self) -> None:
        """End when there is nothing more at the moment."""
        self._until_empty = True
        self.wake()

    def finish_with(self, turn_id: str) -> None:
        """End after the end of this turn."""
        self._last_turn = turn_id

    @property
    def complete(self) -> bool:
        """Whether the turn's end that was waited for has come."""
        return self._ended

    def restrict(self, wants: Callable[[Event], bool]) -> None:
        """Tell other events from now on."""
        self._wants = wants

    def fail(self, error: WarmlineError) -> None:
        """End with an error as soon as the stream comes for more."""
        self._error = self._error or error
        self.wake()

    def wake(self) -> None:
        """Look again whether there is something to take."""
        self._woken = True
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    def close(self) -> None:
        """Read no more; whoever waits gets the end."""
        self._last = 0
        self._feed.remove(self)
        self.wake()

    async def get(self) -> list[Event]:
        """What is new, at least one event; empty at the end. Raises the error that ends the stream."""
        while True:
            self._woken = False
            if self._own:
                own = await self._take_own()
                self._look_for_end(own)
                if own:
                    return own
                continue
            if self._error is not None:
                raise self._error
            if self._last is not None and self._cursor >= self._last:
                return []
            events = self._at_hand()
            if events is None:
                events = await self._from_store()
            if not events:
                if self._until_empty:
                    return []
                await self._wait()
                continue
            self._cursor = events[-1].seq
            told = [event for event in events if self._wants(event)]
            self._look_for_end(events)
            if told:
                return joined(told)

    async def _take_own(self) -> list[Event]:
        """What is for this stream alone, up to a replay; or a page of the replay."""
        events: list[Event] = []
        while self._own:
            head = self._own[0]
            if not isinstance(head, _Replay):
                events.append(head)
                self._own.popleft()
            elif events:
                return events
            else:
                return await self._replayed(head)
        return events

    async def _replayed(self, replay: _Replay) -> list[Event]:
        upto = replay.upto = self._cursor if replay.upto is None else replay.upto
        page = await self._read(replay.after, replay.turn_id)
        events = [event for event in page if event.seq <= upto]
        if len(events) < len(page) or not page:
            self._own.popleft()
        else:
            replay.after = events[-1].seq
        return joined([event for event in events if self._wants(event)])

    def _at_hand(self) -> list[Event] | None:
        """The next events where they are in memory, or not stored yet; None where they are not."""
        feed = self._feed
        known = feed.local and feed.floor is not None and self._cursor >= feed.floor
        return feed.after(self._cursor) if known else None

    async def _from_store(self) -> list[Event]:
        feed, floor = self._feed, self._feed.floor
        events = await self._read(self._cursor)
        if events or not feed.local:
            return events
        feed.found_end(self._cursor)
        # What is not in the store below the floor is not kept any more.
        self._cursor = max(self._cursor, floor or 0)
        return self._at_hand() or []

    async def _wait(self) -> None:
        if self._woken:
            return
        self._waiter = asyncio.get_running_loop().create_future()
        if self._feed.local:
            await self._waiter
        else:
            # Another server may have stored something.
            await asyncio.wait({self._waiter}, timeout=_POLL)

    def _look_for_end(self, events: Sequence[Event]) -> None:
        if not self._last_turn:
            return
        for event in events:
            if event.turn_id == self._last_turn and kind_of(event.body) in TURN_ENDS:
                self._ended = True
                self._last = event.seq


def _cost(event: Event) -> int:
    """What an event takes in memory, about."""
    body = event.body
    if type(body) is TextDelta or isinstance(body, Delta):
        return _EVENT_COST + len(body.text)
    match body:
        case Message(content=content):
            return _EVENT_COST + sum(
                len(block.text) if isinstance(block, TextBlock | ThinkingBlock) else block.size
                for block in content
            )
        case ToolCall(size=size) | ApprovalRequested(size=size) | ClientToolCalled(size=size):
            return _EVENT_COST + size
        case (
            ToolResult(text=text)
            | DebugLog(text=text)
            | AgentEvent(text=text)
            | Raw(json=text)
            | TurnCompleted(result=text)
        ):
            return _EVENT_COST + len(text)
    return _EVENT_COST
