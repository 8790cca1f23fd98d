"""A hundred paced streams at once: how much later a delta arrives than it was written."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from bench.children import Service, relay, service
from bench.figures import Finding, Goal, Report, Series
from bench.load import Arrival, build_generator, reading
from bench.plan import Plan
from bench.procfs import children_cpu, cpu_seconds, rest

PART = "100 streams of 50 deltas a second"
_STREAMS = 100
_INTERVAL_MS = 20
_POOL: dict[str, object] = {
    "pool__max_processes": _STREAMS + 20,
    "pool__memory_budget_bytes": 16 * 2**30,
    "pool__process_estimate_bytes": 16 * 2**20,
    "pool__min_spares": 0,
    "pool__max_spares": 0,
    "pool__warm_up": False,
    "pool__max_starting": 4,
}


@dataclass(frozen=True)
class _Cpu:
    """CPU time for 1,000 deltas: of a server, of the processes that it reads, and of its client."""

    server: Series
    processes: Series
    client: Series

    @classmethod
    def of(cls, report: Report, server: str) -> _Cpu:
        """New series, for a server of this name."""
        names = (server, f"{server}'s processes", f"{server}'s client")
        return cls(*(report.series(PART, f"CPU of 1,000 deltas: {name}", "ms") for name in names))


async def run(plan: Plan, report: Report) -> None:
    """Through the service, through a bare gRPC server, and on pipes: the machine's own share."""
    binary = await asyncio.to_thread(build_generator, plan.home / "fake")
    count = plan.pick(300, 100)
    added = report.series(PART, "written to received, through the service", "ms")
    seen = report.series(PART, "of that, until the service saw it", "ms")
    relayed = report.series(PART, "the same through a bare gRPC server", "ms", "gRPC's own share")
    piped = report.series(PART, "the same on bare pipes", "ms", "the machine's own share")
    cost, bare_cost = _Cpu.of(report, "the service"), _Cpu.of(report, "a bare gRPC server")
    async with service(plan.home, "f", {**_POOL, "cli__path": binary}) as running:
        taken = await _through(running, count, cost)
        added.values += [_lateness(each) for each in taken]
        seen.values += [(each.seen - each.written) / 1e6 for each in taken]
    async with relay(plan.home, binary) as running:
        taken = await _through(running, count, bare_cost)
        relayed.values += [_lateness(each) for each in taken]
    piped.values += await _through_pipes(binary, count)
    report.findings.append(Finding("added latency, p99 in ms", added.p99, Goal(20)))
    ratio = cost.server.median / bare_cost.server.median
    report.findings.append(Finding("CPU of a delta / bare gRPC server", ratio, Goal(2, firm=False)))


async def _through(running: Service, count: int, cost: _Cpu) -> list[Arrival]:
    async with reading("service", running.address, _STREAMS, count, _INTERVAL_MS) as ready:
        await rest()
        with _counted(cost, running.pid, ready.pid, count):
            await ready.run()
        return await ready.arrivals()


async def _through_pipes(binary: Path, count: int) -> list[float]:
    async with reading("pipes", binary, _STREAMS, count, _INTERVAL_MS) as ready:
        await rest()
        await ready.run()
        return [_lateness(each) for each in await ready.arrivals()]


@contextmanager
def _counted(cost: _Cpu, server: int, client: int, count: int) -> Iterator[None]:
    def used() -> tuple[float, float, float]:
        return cpu_seconds(server), children_cpu(server), cpu_seconds(client)

    before = used()
    yield
    for series, then, now in zip(
        (cost.server, cost.processes, cost.client), before, used(), strict=True
    ):
        series.values.append((now - then) * 1e6 / (count * _STREAMS))


def _lateness(arrival: Arrival) -> float:
    return (arrival.received - arrival.written) / 1e6
