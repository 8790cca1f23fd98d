"""What sessions and spares weigh, and the service itself."""

from __future__ import annotations

from contextlib import AsyncExitStack

from warmline_client import connect

from bench import calls
from bench.children import Service, service
from bench.figures import Report
from bench.plan import Plan
from bench.procfs import rest, rss_bytes, tree_cpu, tree_pss

PART = "memory"
_SPARES = 2  # One of each kind.
_TURNS = 3
_MIB = 2**20


async def run(plan: Plan, report: Report) -> None:
    """Open sessions one by one, run some turns in each, and weigh everything at the end."""
    hot = report.series(PART, "hot session, PSS", "MiB", f"real CLI, after {_TURNS} turns")
    spare = report.series(PART, "spare, PSS", "MiB", "one of each kind")
    own = report.series(PART, "the service itself, RSS", "MiB")
    settings = {"pool__min_spares": 1, "pool__max_spares": 1}
    async with AsyncExitStack() as stack:
        running = await stack.enter_async_context(service(plan.home, "m", settings))
        client = await stack.enter_async_context(connect(running.address))
        lent: set[int] = set()
        for _ in range(plan.pick(8, 4)):
            await running.has_processes(len(lent) + _SPARES)
            await rest()
            before = _cpu(running)
            conversation, _ = await stack.enter_async_context(calls.first_turn(client, "hello"))
            for _ in range(_TURNS - 1):
                await calls.turn(conversation, "hello")
            lent.add(_busiest(before, _cpu(running)))
        await running.has_processes(len(lent) + _SPARES)
        await rest()
        for pid in running.processes():
            (hot if pid in lent else spare).values.append(tree_pss(pid) / _MIB)
        own.values.append(rss_bytes(running.pid) / _MIB)


def _cpu(running: Service) -> dict[int, float]:
    return {pid: tree_cpu(pid) for pid in running.processes()}


def _busiest(before: dict[int, float], after: dict[int, float]) -> int:
    """Of the processes that were there before, the one that has worked: the session's."""
    return max(before, key=lambda pid: after.get(pid, 0.0) - before[pid])
