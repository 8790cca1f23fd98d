"""How fast deltas pass, and what of the service's CPU a thousand of them take."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass

from warmline_client import connect

from bench import calls
from bench.children import service
from bench.figures import Report
from bench.load import build_generator
from bench.plan import Plan
from bench.procfs import cpu_seconds, rest

PART = "throughput of one stream"
_REAL = "real CLI"
_NOTE = "the service's CPU includes the loopback model"


@dataclass(frozen=True)
class _Flow:
    name: str
    text: str
    count: int
    note: str


def _real(count: int, pace: str) -> str:
    return f"::pace {pace}\n::text {count}" if pace else f"::text {count}"


async def run(plan: Plan, report: Report) -> None:
    """With the real CLI, then with a fake one that asks no model."""
    fast, paced = plan.pick(5000, 2000), plan.pick(600, 300)
    await _measure(
        plan,
        report,
        {},
        [
            _Flow(f"{_REAL}, full speed", _real(fast, ""), fast, _NOTE),
            _Flow(f"{_REAL}, one in 4 ms", _real(paced, "4ms"), paced, _NOTE),
        ],
    )
    fake = await asyncio.to_thread(build_generator, plan.home / "fake")
    await _measure(
        plan,
        report,
        {"cli__path": fake, "pool__warm_up": False},
        [
            _Flow("fake CLI, full speed", f"!deltas {2 * fast}", 2 * fast, ""),
            _Flow("fake CLI, one in 4 ms", f"!deltas {paced} 4", paced, ""),
        ],
    )


async def _measure(
    plan: Plan, report: Report, settings: Mapping[str, object], flows: list[_Flow]
) -> None:
    pool = {"pool__min_spares": 0, "pool__max_spares": 0}
    async with (
        service(plan.home, f"t{len(settings)}", {**pool, **settings}) as running,
        connect(running.address) as client,
        calls.first_turn(client, "hello") as (conversation, _),
    ):
        for flow in flows:
            speed = report.series(PART, f"{flow.name}: deltas", "1/s", flow.note)
            cost = report.series(PART, f"{flow.name}: CPU of 1,000", "ms", flow.note)
            for _ in range(plan.pick(4, 2)):
                await rest()
                before = cpu_seconds(running.pid)
                timed = await calls.turn(conversation, flow.text)
                used = cpu_seconds(running.pid) - before
                speed.values.append(flow.count / (timed.whole - timed.first_text))
                cost.values.append(used * 1e6 / flow.count)
