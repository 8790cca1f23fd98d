"""The outbox of a stream: order, joining, bounds."""

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st
from warmline_service.chat import Detail, Outbox
from warmline_service.chat.events import Body, Event, TextDelta, ThinkingDelta, TurnQueued
from warmline_service.errors import Reason, WarmlineError

LIMIT = 1_000_000


def event(seq: int, body: Body, turn: str = "t") -> Event:
    return Event("s", turn, 1, seq, 0.0, body)


async def test_events_come_in_order_and_the_end_after_them() -> None:
    """A closed outbox gives what it holds first, then the end."""
    outbox = Outbox(Detail.BLOCKS, LIMIT)
    for seq in range(3):
        outbox.put(event(seq, TurnQueued(seq)))
    outbox.close()
    assert [each.seq for each in await outbox.get()] == [0, 1, 2]
    assert await outbox.get() == []


async def test_a_reader_waits_for_the_next_event() -> None:
    """`get` waits while nothing is there."""
    outbox = Outbox(Detail.BLOCKS, LIMIT)
    reading = asyncio.create_task(outbox.get())
    await asyncio.sleep(0)
    assert not reading.done()
    outbox.put(event(1, TurnQueued(1)))
    assert len(await reading) == 1


@given(st.lists(st.tuples(st.text(max_size=5), st.integers(0, 1), st.booleans()), max_size=300))
def test_joining_loses_no_text_and_mixes_no_blocks(
    deltas: list[tuple[str, int, bool]],
) -> None:
    """However many deltas wait, each block's text is what was put, in order."""

    async def run() -> list[Event]:
        outbox = Outbox(Detail.BLOCKS, LIMIT)
        for seq, (text, block, thinking) in enumerate(deltas):
            body = ThinkingDelta(text, block) if thinking else TextDelta(text, block)
            outbox.put(event(seq, body))
        outbox.close()
        return await outbox.get()

    got = asyncio.run(run())
    for kind in (TextDelta, ThinkingDelta):
        for block in (0, 1):
            put = "".join(
                t for t, b, thinking in deltas if b == block and thinking == (kind is ThinkingDelta)
            )
            seen = "".join(
                each.body.text
                for each in got
                if isinstance(each.body, kind) and each.body.block == block
            )
            assert seen == put
    assert sorted(each.seq for each in got) == [each.seq for each in got]
    if deltas:
        assert got[-1].seq == len(deltas) - 1


async def test_a_slow_reader_is_told_so_and_holds_no_memory() -> None:
    """Past its bound the outbox drops everything and raises SLOW_CONSUMER."""
    outbox = Outbox(Detail.BLOCKS, 10_000)
    for seq in range(100):
        outbox.put(event(seq, TextDelta("x" * 500, 0), turn=str(seq)))
    with pytest.raises(WarmlineError) as caught:
        await outbox.get()
    assert caught.value.reason is Reason.SLOW_CONSUMER


async def test_text_detail_leaves_out_thinking() -> None:
    """A stream gets what its detail asks for."""
    outbox = Outbox(Detail.TEXT, LIMIT)
    outbox.put(event(1, ThinkingDelta("hm", 0)))
    outbox.put(event(2, TextDelta("hi", 1)))
    assert [each.seq for each in await outbox.get()] == [2]
