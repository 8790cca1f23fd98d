"""Those who converse and those who observe: clients that give up, come back and go on by cursor and key."""

from __future__ import annotations

import asyncio
import contextlib
import random
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from warmline.v1 import chat_service_pb2 as chat_pb
from warmline_client import Client, Conversation, Turn, WarmlineError, connect

from chaos.seen import ENDS, Seen, seen

# What a client may be told while things break; anything else is a violation.
_EXPECTED = {
    "", "DRAINING", "SESSION_BUSY", "SESSION_ELSEWHERE", "STORAGE_UNAVAILABLE", "SLOW_CONSUMER"
}  # fmt: skip
# How long the library itself tries, in seconds: short, so that giving up is seen too.
_RECONNECT = 8.0
_PAUSE = (0.05, 0.4)


@dataclass(eq=False)
class Message:
    """A message, what was to be answered, and each view that a client has had of its turn."""

    mark: str
    text: str
    answer: str
    key: str
    views: list[list[Seen]] = field(default_factory=list)
    end: Seen | None = None


@dataclass(eq=False)
class Line:
    """One session: its messages, what its observer saw, and what nobody should have been told."""

    number: int
    raw: bool
    # Seconds at most between two messages.
    pause: float
    id: str = ""
    known: asyncio.Event = field(default_factory=asyncio.Event)
    messages: list[Message] = field(default_factory=list)
    observed: list[Seen] = field(default_factory=list)
    complaints: list[str] = field(default_factory=list)
    counts: Counter[str] = field(default_factory=Counter)

    def expect(self, who: str, error: WarmlineError) -> None:
        """Count a failure that a client was told of."""
        self.counts[f"{error.code.name} {error.reason}".strip()] += 1
        if error.reason not in _EXPECTED:
            self.complain(f"{who} was told {error}")

    def complain(self, what: str) -> None:
        """Note what nobody should have been told."""
        self.complaints.append(f"{time.strftime('%H:%M:%S')} {what}")


class Talker:
    """A client of one session that sends messages until each has its end, whatever happens."""

    def __init__(
        self, line: Line, address: str, batch: Callable[[], Sequence[Message]], rng: random.Random
    ) -> None:
        self._line = line
        self._address = address
        self._batch = batch
        self._rng = rng
        self._left: Sequence[Message] = ()
        self._chat: Conversation | None = None
        self._cursor: chat_pb.Cursor | None = None

    def cancel(self) -> bool:
        """Give the conversation up; it comes back by itself. False where there is none."""
        if self._chat is None:
            return False
        self._chat.cancel()
        return True

    async def run(self) -> None:
        """Send what `batch` gives, until it gives nothing."""
        while self._more():
            # A connection of its own each time, as a client that was started again has.
            async with connect(self._address) as client:
                with contextlib.suppress(WarmlineError):
                    await self._converse(client)
            await asyncio.sleep(self._rng.uniform(*_PAUSE))

    def _more(self) -> bool:
        left = [each for each in self._left if each.end is None]
        self._left = left or self._batch()
        return bool(self._left)

    async def _converse(self, client: Client) -> None:
        line = self._line
        chat = client.chat(
            session_id=line.id,
            after=self._cursor if line.id else None,
            takeover=bool(line.id),
            reconnect_timeout=_RECONNECT,
        )
        try:
            async with chat:
                self._chat = chat
                line.id = line.id or chat.session_id
                line.known.set()
                while self._more() and not chat.broken:
                    await self._send(chat, self._left)
                    await asyncio.sleep(self._rng.uniform(0, line.pause))
        except WarmlineError as error:
            line.expect("a client", error)
            raise
        finally:
            self._chat = None
            if chat.session_id:
                self._cursor = chat.cursor

    async def _send(self, chat: Conversation, messages: Sequence[Message]) -> None:
        turns = [(each, await chat.send(each.text, key=each.key)) for each in messages]
        for message, turn in turns:
            await self._follow(message, turn)

    async def _follow(self, message: Message, turn: Turn) -> None:
        view: list[Seen] = []
        message.views.append(view)
        async for event in turn:
            if event.seq:
                view.append(seen(event))
            elif event.HasField("turn_failed"):
                # Not accepted, and not stored: it is sent again.
                self._line.expect("a client", WarmlineError(event.turn_failed.status))
                await asyncio.sleep(self._rng.uniform(*_PAUSE))
        if view and view[-1].kind in ENDS:
            if message.end not in (None, view[-1]):
                self._line.complain(f"{message.mark} ended twice: {message.end}, {view[-1]}")
            message.end = view[-1]


class Observer:
    """Watches a session all along, and goes on by cursor after each failure."""

    def __init__(self, line: Line, address: str, rng: random.Random) -> None:
        self._line = line
        self._address = address
        self._rng = rng

    async def run(self) -> None:
        """Observe until cancelled."""
        await self._line.known.wait()
        while True:
            async with connect(self._address) as client:
                with contextlib.suppress(WarmlineError):
                    await self._watch(client)
            await asyncio.sleep(self._rng.uniform(*_PAUSE))

    async def _watch(self, client: Client) -> None:
        line = self._line
        detail = chat_pb.DETAIL_RAW if line.raw else chat_pb.DETAIL_BLOCKS
        last = line.observed[-1] if line.observed else None
        after = chat_pb.Cursor(epoch=last.epoch, seq=last.seq) if last else None
        try:
            async for event in client.watch(line.id, after=after, detail=detail):
                if event.seq:
                    line.observed.append(seen(event))
        except WarmlineError as error:
            line.expect("the observer", error)
            raise


async def replay(client: Client, session_id: str) -> list[Seen]:
    """All that is stored of a session, raw lines included."""
    watch = client.watch(session_id, detail=chat_pb.DETAIL_RAW, replay_only=True)
    return [seen(event) async for event in watch]
