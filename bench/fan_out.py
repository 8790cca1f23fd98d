"""A hundred paced streams at once: how much later a delta arrives than it was written."""

from __future__ import annotations

import asyncio
import json
import time
from asyncio.subprocess import DEVNULL, PIPE, Process
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import TypeVar

import grpc

from bench import streams
from bench.children import Service, end, relay, service
from bench.figures import Finding, Goal, Report, Series
from bench.plan import Plan
from bench.procfs import cpu_seconds, rest
from bench.stamping_cli import install, stamps

_T = TypeVar("_T")
PART = "100 streams of 50 deltas a second"
_STREAMS = 100
_INTERVAL_MS = 20
# Streams that are set up at once: a pool queues only so many callers of one tenant.
_TOGETHER = 8
_POOL: dict[str, object] = {
    "pool__max_processes": _STREAMS + 20,
    "pool__memory_budget_bytes": 16 * 2**30,
    "pool__process_estimate_bytes": 16 * 2**20,
    "pool__min_spares": 0,
    "pool__max_spares": 0,
    "pool__warm_up": False,
    "pool__max_starting": 4,
}


async def run(plan: Plan, report: Report) -> None:
    """Through the service, through a bare gRPC server, and on pipes: the machine's own share."""
    binary = install(plan.home / "fake")
    count = plan.pick(300, 100)
    added = report.series(PART, "written to received, through the service", "ms")
    seen = report.series(PART, "of that, until the service saw it", "ms")
    relayed = report.series(PART, "the same through a bare gRPC server", "ms", "gRPC's own share")
    piped = report.series(PART, "the same on bare pipes", "ms", "the machine's own share")
    cost = report.series(PART, "the service's CPU of 1,000 deltas", "ms")
    share = report.series(PART, "the service's CPU", "% of a core")
    bare_cost = report.series(PART, "the bare gRPC server's CPU of 1,000 deltas", "ms")
    async with service(plan.home, "f", {**_POOL, "cli__path": binary}) as running:
        await _through_service(running, count, (added, seen, cost, share))
    async with relay(plan.home, binary) as running:
        unused = Series("", ""), Series("", "")
        await _through_service(running, count, (relayed, unused[0], bare_cost, unused[1]))
    await _through_pipes(binary, count, piped)
    report.findings.append(Finding("added latency, p99 in ms", added.p99, Goal(20)))
    ratio = cost.median / bare_cost.median
    report.findings.append(Finding("CPU of a delta / bare gRPC server", ratio, Goal(2, firm=False)))


async def _through_service(
    running: Service, count: int, into: tuple[Series, Series, Series, Series]
) -> None:
    added, seen, cost, share = into
    async with streams.channel(running.address) as channel:
        calls = await _in_batches([_ready_stream(channel)] * _STREAMS)
        await rest()
        before, begun = cpu_seconds(running.pid), time.monotonic()

        async def one(call: streams.Call, delay: float) -> list[streams.Arrival]:
            await asyncio.sleep(delay)
            await streams.say(call, _request(count))
            return await streams.arrivals(call)

        taken = await asyncio.gather(
            *(one(call, _delay(index)) for index, call in enumerate(calls))
        )
        used, took = cpu_seconds(running.pid) - before, time.monotonic() - begun
        cost.values.append(used * 1e6 / (count * _STREAMS))
        share.values.append(used / took * 100)
        each_one = [each for turn in taken for each in turn]
        added.values += _lateness([(each.received, each.text) for each in each_one])
        seen.values += _lateness([(each.seen, each.text) for each in each_one])
        await asyncio.gather(*map(streams.close, calls))


def _ready_stream(channel: grpc.aio.Channel) -> Callable[[], Awaitable[streams.Call]]:
    async def ready() -> streams.Call:
        """Its process is there: the first turn has been."""
        call = await streams.open_stream(channel)
        await streams.say(call, "!deltas 1")
        await streams.arrivals(call)
        return call

    return ready


async def _through_pipes(binary: Path, count: int, into: Series) -> None:
    async with AsyncExitStack() as stack:

        async def ready() -> Process:
            child = await asyncio.create_subprocess_exec(
                binary, stdin=PIPE, stdout=PIPE, stderr=DEVNULL, start_new_session=True
            )
            stack.push_async_callback(end, child, kill=True)
            await _piped(child, 1)
            return child

        children = await _in_batches([ready] * _STREAMS)
        await rest()

        async def one(child: Process, delay: float) -> list[tuple[int, str]]:
            await asyncio.sleep(delay)
            return await _piped(child, count)

        taken = await asyncio.gather(
            *(one(child, _delay(index)) for index, child in enumerate(children))
        )
        into.values += [late for each in taken for late in _lateness(each)]


async def _piped(child: Process, count: int) -> list[tuple[int, str]]:
    assert child.stdin is not None
    assert child.stdout is not None
    message = {"type": "user", "message": {"role": "user", "content": _request(count)}}
    child.stdin.write(json.dumps(message).encode() + b"\n")
    taken: list[tuple[int, bytes]] = []
    async with asyncio.timeout(60.0):
        while line := await child.stdout.readline():
            if b'"text_delta"' in line:
                taken.append((time.monotonic_ns(), line))
            if b'"type":"result"' in line:
                return [(at, json.loads(each)["event"]["delta"]["text"]) for at, each in taken]
    raise RuntimeError("the fake CLI ended before its turn")


async def _in_batches(makers: list[Callable[[], Awaitable[_T]]]) -> list[_T]:
    made: list[_T] = []
    for index in range(0, len(makers), _TOGETHER):
        made += await asyncio.gather(*(make() for make in makers[index : index + _TOGETHER]))
    return made


def _request(count: int) -> str:
    return f"!deltas {count} {_INTERVAL_MS}"


def _delay(index: int) -> float:
    """Streams begin over one second, so that they write neither together nor in step."""
    return index * (1.0 / _STREAMS) + (index % 20) * 0.001


def _lateness(taken: list[tuple[int, str]]) -> list[float]:
    return [(at - stamp) / 1e6 for at, text in taken for stamp in stamps(text)]
