"""One tenant paced, another one flooding: what the first feels of the second, which is at its bounds."""

from __future__ import annotations

import asyncio
import json
import signal
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager

from warmline_client import Conversation, connect
from warmline_service.tenants import hash_key, new_key

from bench import calls
from bench.children import end, service
from bench.figures import Finding, Goal, Report, Series
from bench.load import build_generator
from bench.plan import Plan
from bench.procfs import rest

PART = "a paced tenant beside one that floods"
_PACE = 0.1
# Until the flood is under way, in seconds; after a pause it is so sooner.
_BEGIN = 10.0
_GO_ON = 2.0
_GRACE = 20.0
_BOUNDS = {"concurrent_turns": 2, "open_streams": 30, "requests_per_minute": 600}
_GOAL = Goal(1.5)


async def run(plan: Plan, report: Report) -> None:
    """The same turns alone and beside the flood, by short turns: a machine's slow moments are in both."""
    alone = report.series(PART, "hot turn, to its end: alone", "ms", "fake CLI")
    beside = report.series(PART, "the same beside the flood", "ms", "fake CLI")
    asked = report.series(PART, "messages and streams that the flood asked for", "in all")
    (paced, key), (flooding, flood_key) = _tenant("paced"), _tenant("flooding")
    settings = {
        "cli__path": await asyncio.to_thread(build_generator, plan.home / "fake"),
        "pool__warm_up": False,
        "tenants": json.dumps([paced, flooding | {"policy": _BOUNDS}]),
    }
    rounds, turns = plan.pick(20, 1), 50
    async with service(plan.home, "t", settings) as running:
        async with (
            connect(running.address, api_key=key) as client,
            calls.first_turn(client, "hello") as (chat, _),
            _flood(running.address, flood_key, asked) as flood,
        ):
            await asyncio.sleep(_BEGIN)
            for _ in range(rounds):
                with _paused(flood):
                    await rest()
                    await _turns(chat, alone, turns)
                await asyncio.sleep(_GO_ON)
                await _turns(chat, beside, turns)
                if flood.returncode is not None:
                    raise RuntimeError("the flood has ended by itself")
    if alone.values:
        ratio = beside.p99 / alone.p99
        report.findings.append(
            Finding("p99 of a paced tenant beside a flood / alone", ratio, _GOAL)
        )


def _tenant(name: str) -> tuple[dict[str, object], str]:
    identifier, key = new_key()
    return {"id": name, "keys": [{"id": identifier, "sha256": hash_key(key)}]}, key


@asynccontextmanager
async def _flood(address: str, key: str, asked: Series) -> AsyncIterator[Process]:
    child = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "bench.flood", address), stdin=PIPE, stdout=PIPE
    )
    try:
        assert child.stdin is not None
        assert child.stdout is not None
        child.stdin.write(f"{key}\n".encode())
        await child.stdout.readline()
        yield child
        child.send_signal(signal.SIGTERM)
        async with asyncio.timeout(_GRACE):
            said = await child.stdout.readline()
        if not said:
            raise RuntimeError("the flood did not say how often it has asked")
        asked.values.append(sum(map(int, said.split())))
    finally:
        await end(child)


@contextmanager
def _paused(flood: Process) -> Iterator[None]:
    """Let it keep its streams and say nothing."""
    flood.send_signal(signal.SIGSTOP)
    try:
        yield
    finally:
        flood.send_signal(signal.SIGCONT)


async def _turns(conversation: Conversation, into: Series, count: int) -> None:
    for _ in range(count):
        into.values.append((await calls.turn(conversation, "!deltas 5")).whole * 1000)
        await asyncio.sleep(_PACE)
