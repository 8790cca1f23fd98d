"""A stream is told each event once and in order, whether from memory or from the store."""

import asyncio
from collections.abc import Callable
from random import Random

from hypothesis import given
from hypothesis import strategies as st
from warmline_service.sessions import Feed, Subscription
from warmline_service.sessions.events import (
    Event,
    StopReason,
    TextDelta,
    ToolInputDelta,
    TurnCompleted,
    Usage,
    joined,
)

DONE = TurnCompleted(StopReason.END_TURN, "", Usage(), None)
SMALL = 2_000  # bytes: a handful of events


def delta(seq: int, turn: str = "t") -> Event:
    return Event("s", turn, 1, seq, 0.0, TextDelta(f"<{seq}>", 0))


class Stored:
    """The events of one session that are in the store, in pages of `page`."""

    def __init__(self, page: int = 7) -> None:
        self.events: list[Event] = []
        self._page = page

    async def read(self, after: int, turn_id: str = "") -> list[Event]:
        found = [e for e in self.events if e.seq > after and turn_id in ("", e.turn_id)]
        await asyncio.sleep(0)  # Something else may happen meanwhile.
        return found[: self._page]


def everything(event: Event) -> bool:
    return True


def told(events: list[Event]) -> list[int]:
    """The seqs of the deltas that were told, joined ones taken apart by their text."""
    text = "".join(e.body.text for e in events if isinstance(e.body, TextDelta))
    return [int(each) for each in text.replace("<", " ").replace(">", " ").split()]


@given(
    groups=st.lists(st.integers(1, 40), min_size=1, max_size=12),
    cut=st.integers(0, 200),
    seed=st.integers(0, 2**16),
)
def test_what_two_connections_saw_is_what_one_would_have(
    groups: list[int], cut: int, seed: int
) -> None:
    """Wherever the first is cut, however the groups fall, and however little memory there is."""

    async def run() -> tuple[list[int], int]:
        stored, feed = Stored(), Feed(SMALL, local=True, floor=0)
        chance, total = Random(seed), sum(groups)  # noqa: S311  # hypothesis chose the seed
        first = Subscription(feed, stored.read, 0, everything)
        seen: list[Event] = []

        async def write() -> None:
            seq = 0
            for size in groups:
                group = [delta(seq + n + 1) for n in range(size)]
                seq += size
                stored.events += group
                feed.publish(group)
                for _ in range(chance.randrange(3)):
                    await asyncio.sleep(0)

        async def read(reader: Subscription, upto: int) -> None:
            while reader.cursor < upto:
                seen.extend(await reader.get())
                await asyncio.sleep(0)

        writing = asyncio.create_task(write())
        await read(first, min(cut, total))
        at = max((event.seq for event in seen), default=0)
        first.close()
        await asyncio.sleep(0)
        second = Subscription(feed, stored.read, at, everything)
        await read(second, total)
        await writing
        second.close()
        return told(seen), total

    seqs, total = asyncio.run(run())
    assert seqs == list(range(1, total + 1))


async def test_a_slow_reader_takes_no_memory() -> None:
    """What it has not read yet is in the store alone, and it still gets all of it."""
    stored, feed = Stored(page=50), Feed(SMALL, local=True, floor=0)
    reader = Subscription(feed, stored.read, 0, everything)
    for seq in range(1, 1001):
        stored.events.append(delta(seq))
        feed.publish([delta(seq)])
        assert feed._size <= SMALL
    reader.finish(1000)
    seen: list[Event] = []
    while batch := await reader.get():
        seen += batch
    assert told(seen) == list(range(1, 1001))


async def test_nothing_is_kept_while_nobody_reads() -> None:
    """And who comes later is told from the store."""
    stored, feed = Stored(), Feed(SMALL, local=True, floor=0)
    for seq in range(1, 6):
        stored.events.append(delta(seq))
        feed.publish([delta(seq)])
    assert (feed._size, feed.floor) == (0, 5)
    reader = Subscription(feed, stored.read, 2, everything)
    assert told(await reader.get()) == [3, 4, 5]


async def test_a_reader_from_before_the_first_event_misses_none() -> None:
    """Where it is not known what the store holds, the store is asked."""
    stored, feed = Stored(), Feed(SMALL, local=True)
    stored.events += [delta(1), delta(2)]
    reader = Subscription(feed, stored.read, 0, everything)
    assert told(await reader.get()) == [1, 2]
    getting = asyncio.create_task(reader.get())
    await asyncio.sleep(0.01)
    stored.events.append(delta(3))
    feed.publish([delta(3)])
    assert told(await getting) == [3]


async def test_a_stream_of_one_turn_ends_with_it() -> None:
    """Nothing of another turn is told, and nothing after its end."""
    stored, feed = Stored(), Feed(SMALL, local=True, floor=0)
    reader = Subscription(feed, stored.read, 0, lambda event: event.turn_id == "mine")
    reader.finish_with("mine")
    feed.publish([delta(1, "other"), delta(2, "mine"), Event("s", "mine", 1, 3, 0.0, DONE)])
    events = await reader.get()
    feed.publish([delta(4, "mine")])
    assert [event.seq for event in events] == [2, 3]
    assert await reader.get() == []
    assert reader.complete


async def test_a_turn_is_told_once_more_up_to_a_place() -> None:
    """What comes after that place comes by itself."""
    stored, feed = Stored(page=2), Feed(SMALL, local=True, floor=5)
    stored.events += [delta(seq, "mine" if seq % 2 else "other") for seq in range(1, 6)]
    reader = Subscription(feed, stored.read, 4, everything)
    reader.replay("mine")
    seen: list[Event] = []
    for _ in range(2):
        seen += await reader.get()
    assert told(seen) == [1, 3, 5]


@given(st.lists(st.tuples(st.integers(0, 1), st.booleans()), max_size=200))
def test_joining_loses_no_text_and_mixes_no_blocks(deltas: list[tuple[int, bool]]) -> None:
    """Each block's text is what was said, and each event has the seq of its last delta."""
    kinds: dict[bool, Callable[[str, int], TextDelta | ToolInputDelta]] = {
        True: TextDelta,
        False: ToolInputDelta,
    }
    events = [
        Event("s", "t", 1, seq, 0.0, kinds[text](f"<{seq}>", block))
        for seq, (block, text) in enumerate(deltas, 1)
    ]
    fewer = joined(events)
    last = 0
    for event in fewer:
        assert isinstance(event.body, TextDelta | ToolInputDelta)
        whole = "".join(f"<{seq}>" for seq in range(last + 1, event.seq + 1))
        assert event.body.text == whole
        assert all(
            (kinds[text], block) == (type(event.body), event.body.block)
            for block, text in deltas[last : event.seq]
        )
        last = event.seq
    assert last == len(deltas)
