"""A hundred paced streams at once: how much later a delta arrives than it was written."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import AbstractAsyncContextManager, contextmanager
from dataclasses import dataclass

from bench.children import relay, service
from bench.figures import Finding, Goal, Report, Series
from bench.load import Arrival, Reading, build_generator, reading
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
    """Through the service, through a bare gRPC server, and on pipes, by turns: all have the same minutes."""
    binary = await asyncio.to_thread(build_generator, plan.home / "fake")
    rounds, count = plan.pick(6, 1), plan.pick(300, 100)
    through = report.series(PART, "written to received, through the service", "ms")
    seen = report.series(PART, "of that, until the service saw it", "ms")
    relayed = report.series(PART, "the same through a bare gRPC server", "ms", "gRPC's own share")
    piped = report.series(PART, "the same on bare pipes", "ms", "the machine's own share")
    added = report.series(PART, "p99 added to the bare gRPC server's", "ms", "by rounds")
    cost, bare_cost = _Cpu.of(report, "the service"), _Cpu.of(report, "a bare gRPC server")
    async with (
        service(plan.home, "f", {**_POOL, "cli__path": binary}) as running,
        relay(plan.home, binary) as bare,
        _reading("service", running.address, count) as by_service,
        _reading("service", bare.address, count) as by_bare,
        _reading("pipes", binary, count) as by_pipes,
    ):
        for _ in range(rounds):
            await rest()
            with _counted(cost, running.pid, by_service.pid, count):
                await by_service.run()
            await rest()
            with _counted(bare_cost, bare.pid, by_bare.pid, count):
                await by_bare.run()
            await rest()
            await by_pipes.run()
        taken = await by_service.arrivals()
        through.values += [_lateness(each) for each in taken]
        seen.values += [(each.seen - each.written) / 1e6 for each in taken]
        relayed.values += [_lateness(each) for each in await by_bare.arrivals()]
        piped.values += [_lateness(each) for each in await by_pipes.arrivals()]
    added.values += [
        ours - theirs
        for ours, theirs in zip(_p99s(through, rounds), _p99s(relayed, rounds), strict=True)
    ]
    report.findings += [
        Finding("p99 added to a bare gRPC server's, in ms", added.median, Goal(20)),
        Finding("p99 through the service, in ms", through.p99, Goal(20, firm=False)),
    ]
    ratio = cost.server.median / bare_cost.server.median
    report.findings.append(Finding("CPU of a delta / bare gRPC server", ratio, Goal(2, firm=False)))


def _reading(kind: str, where: object, count: int) -> AbstractAsyncContextManager[Reading]:
    return reading(kind, where, _STREAMS, count, _INTERVAL_MS)


def _p99s(of: Series, rounds: int) -> list[float]:
    """The p99 of each round; all have as many values, and are one behind the other."""
    size = len(of.values) // rounds
    each = (of.values[at * size : (at + 1) * size] for at in range(rounds))
    return [Series("", "ms", values).p99 for values in each]


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
