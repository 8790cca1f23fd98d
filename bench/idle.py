"""A thousand open streams that say nothing: what they cost, and whether a turn still works."""

from __future__ import annotations

import asyncio
import time
from contextlib import AsyncExitStack

import grpc
from warmline_client import Conversation, connect

from bench import calls, streams
from bench.children import service
from bench.figures import Report, Series
from bench.load import build_generator
from bench.plan import Plan
from bench.procfs import cpu_seconds, rest, rss_bytes

PART = "1,000 idle streams"
_STREAMS = 1000
_CONNECTIONS = 4
# Streams that are opened at once on each connection.
_TOGETHER = 25
_QUIET = 2.0


async def run(plan: Plan, report: Report) -> None:
    """Open them over four connections, look, and close them again."""
    rate = report.series(PART, "opened", "1/s")
    weight = report.series(PART, "the service's memory for each", "KiB", "growth of its RSS")
    load = report.series(PART, "the service's CPU while they are idle", "% of a core")
    before = report.series(PART, "hot turn before, to the first text", "ms", "fake CLI")
    meanwhile = report.series(PART, "hot turn meanwhile", "ms", "fake CLI")
    settings = {
        "cli__path": await asyncio.to_thread(build_generator, plan.home / "fake"),
        "pool__warm_up": False,
    }
    async with AsyncExitStack() as stack:
        enter = stack.enter_async_context
        running = await enter(service(plan.home, "i", settings))
        client = await enter(connect(running.address))
        conversation, _ = await enter(calls.first_turn(client, "hello"))
        channels = [await enter(streams.channel(running.address)) for _ in range(_CONNECTIONS)]
        for channel in channels:
            await streams.close(await streams.open_stream(channel))
        await rest()
        await _turns(conversation, before)
        memory, begun = rss_bytes(running.pid), time.monotonic()
        opened = await asyncio.gather(*map(_open, channels))
        rate.values.append(_STREAMS / (time.monotonic() - begun))
        await rest()
        weight.values.append((rss_bytes(running.pid) - memory) / _STREAMS / 1024)
        used = cpu_seconds(running.pid)
        await asyncio.sleep(_QUIET)
        load.values.append((cpu_seconds(running.pid) - used) / _QUIET * 100)
        await _turns(conversation, meanwhile)
        await asyncio.gather(*(streams.close(call) for calls_ in opened for call in calls_))


async def _open(channel: grpc.aio.Channel) -> list[streams.Call]:
    made: list[streams.Call] = []
    for _ in range(_STREAMS // _CONNECTIONS // _TOGETHER):
        made += await asyncio.gather(*(streams.open_stream(channel) for _ in range(_TOGETHER)))
    return made


async def _turns(conversation: Conversation, into: Series) -> None:
    for _ in range(30):
        into.values.append((await calls.turn(conversation, "!deltas 1")).first_text * 1000)
