"""The loop with virtual time."""

import asyncio
import itertools
import threading
import time

import pytest
import virtual_time


@pytest.mark.virtual_time
async def test_an_hour_of_sleep_takes_no_time() -> None:
    """Time jumps to the next deadline and is exact."""
    loop, real = asyncio.get_running_loop(), time.monotonic()
    await asyncio.sleep(3600)
    assert loop.time() == pytest.approx(3600)
    assert time.monotonic() - real < 5


@pytest.mark.virtual_time
async def test_deadlines_come_in_their_order() -> None:
    """Whoever waits for less is woken first."""
    woken: list[int] = []

    async def wait(seconds: int) -> None:
        await asyncio.sleep(seconds)
        woken.append(seconds)

    await asyncio.gather(wait(30), wait(10), wait(20))
    assert woken == [10, 20, 30]


@pytest.mark.virtual_time
async def test_time_stands_still_while_a_thread_works() -> None:
    """A thread's result beats any deadline, however soon."""
    gate = threading.Event()
    threading.Timer(0.05, gate.set).start()
    assert await asyncio.wait_for(asyncio.to_thread(gate.wait, 10), timeout=0.001)
    assert asyncio.get_running_loop().time() == 0


def test_a_deadlock_is_an_error() -> None:
    """Where nothing can happen any more the loop says so instead of hanging."""

    async def wait_for_ever() -> None:
        await asyncio.Event().wait()

    with pytest.raises(RuntimeError, match="every task is blocked"):
        virtual_time.run(wait_for_ever())


def test_a_test_that_never_ends_is_an_error() -> None:
    """A periodic task does not keep a stuck test alive."""

    async def tick() -> None:
        for _ in itertools.count():
            await asyncio.sleep(3600)

    with pytest.raises(RuntimeError, match="nothing ended"):
        virtual_time.run(tick())
