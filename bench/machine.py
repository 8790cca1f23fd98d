"""How steady the machine itself is: one piece of work again and again, on every core and alone."""

from __future__ import annotations

import asyncio
import os
import statistics
import sys
import time
from asyncio.subprocess import PIPE

from bench.children import end
from bench.figures import Report
from bench.plan import Plan

PART = "the machine alone"
# A piece takes some 10 ms, half as long as a stream of the fan-out has for a delta.
_STEPS = 60
_WORDS = 512
_SLOW = 1.5
_GRACE = 60.0


async def run(plan: Plan, report: Report) -> None:
    """What is slow here is slow in every other part, too."""
    seconds = plan.pick(15, 5)
    pieces = report.series(PART, "a piece of work", "ms", "fixed, on every core at once")
    slow = report.series(PART, f"of the time slower than {_SLOW} times the median", "%")
    for taken in await asyncio.gather(*(_one(seconds) for _ in range(os.cpu_count() or 1))):
        bound = _SLOW * statistics.median(taken)
        pieces.values += taken
        slow.values.append(100 * sum(each for each in taken if each > bound) / sum(taken))


async def _one(seconds: int) -> list[float]:
    child = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "bench.machine", str(seconds), stdout=PIPE, start_new_session=True
    )
    try:
        async with asyncio.timeout(seconds + _GRACE):
            out, _ = await child.communicate()
    finally:
        await asyncio.shield(asyncio.ensure_future(end(child, kill=True)))
    if child.returncode:
        raise RuntimeError(f"the measuring process ended with {child.returncode}")
    return [float(each) for each in out.split()]


def _work(seconds: float) -> None:
    """Dictionaries and objects, as a service's loop has them; tells how long each piece took, in ms."""
    taken: list[float] = []
    end = time.perf_counter() + seconds
    while (begun := time.perf_counter()) < end:
        for step in range(_STEPS):
            made = {f"{step}:{word}": [word, step] for word in range(_WORDS)}
            del made
        taken.append((time.perf_counter() - begun) * 1e3)
    print(*taken)


if __name__ == "__main__":
    _work(float(sys.argv[1]))
