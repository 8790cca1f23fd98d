"""Output is heard at once, and a flood of it in few pieces; nothing of it is lost."""

import asyncio
import os
from collections.abc import Iterator

import pytest
from warmline_service.worker._output import Output

AT_ONCE = 8
PAUSE = 0.001


@pytest.fixture
def pipe() -> Iterator[tuple[int, int]]:
    """A pipe whose reading end the test's Output owns."""
    ours, its = os.pipe()
    yield ours, its
    os.close(its)


async def test_what_is_written_now_and_then_is_heard_at_once(pipe: tuple[int, int]) -> None:
    """A burst as at the beginning of an answer passes line by line, without a pause between."""
    ours, its = pipe
    output, heard = Output(ours), list[bytes]()
    output.listen(heard.append)
    for number in range(AT_ONCE):
        os.write(its, b"%d\n" % number)
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert heard[-1] == b"%d\n" % number
    output.close()


async def test_a_flood_is_heard_in_few_pieces(pipe: tuple[int, int]) -> None:
    """After a burst there is at most one piece in a millisecond, and together they are all."""
    ours, its = pipe
    loop = asyncio.get_running_loop()
    output, heard, lines = Output(ours), list[bytes](), [b"%d\n" % each for each in range(1000)]
    output.listen(heard.append)
    begun = loop.time()
    for line in lines:
        os.write(its, line)
        await asyncio.sleep(0)
    while sum(map(len, heard)) < sum(map(len, lines)):
        await asyncio.sleep(PAUSE)
    assert b"".join(heard) == b"".join(lines)
    assert len(heard) <= AT_ONCE + (loop.time() - begun) / PAUSE + 1
    output.close()


async def test_much_at_a_time_is_never_paused(pipe: tuple[int, int]) -> None:
    """A read that brings many lines is no reason to wait for more."""
    ours, its = pipe
    output, heard = Output(ours), list[bytes]()
    output.listen(heard.append)
    for number in range(10 * AT_ONCE):
        os.write(its, b"x" * 8192)
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert len(heard) == number + 1
    output.close()


async def test_the_end_is_told_after_the_last_piece(pipe: tuple[int, int]) -> None:
    """What was written before the other end closed still counts, even within a pause."""
    ours, its = pipe
    output, heard = Output(ours), list[bytes]()
    output.listen(heard.append)
    other, nothing = os.dup(its), os.open(os.devnull, os.O_WRONLY)
    os.dup2(nothing, its)
    os.close(nothing)
    for _ in range(3 * AT_ONCE):
        os.write(other, b"line\n")
        await asyncio.sleep(0)
    os.close(other)
    await asyncio.wait_for(output.ended, 60)
    assert b"".join(heard) == b"line\n" * 3 * AT_ONCE


async def test_closing_within_a_pause_leaves_nothing(pipe: tuple[int, int]) -> None:
    """A timer that is under way does not touch a descriptor which may be somebody else's by then."""
    ours, its = pipe
    output, heard = Output(ours), list[bytes]()
    output.listen(heard.append)
    for _ in range(3 * AT_ONCE):
        os.write(its, b"line\n")
        await asyncio.sleep(0)
    output.close()
    output.close()
    count = len(heard)
    await asyncio.sleep(5 * PAUSE)
    assert len(heard) == count
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(ours)
