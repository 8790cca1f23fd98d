"""How fast one stream of server-sent events passes, and what of the CPU a thousand of them take."""

from __future__ import annotations

from dataclasses import dataclass

from bench.children import Service
from bench.figures import Report
from bench.http_site import MODEL, Site
from bench.plan import Plan
from bench.procfs import rest, tree_cpu
from bench.sse import Talk

PART = "HTTP: throughput of one stream"


@dataclass(frozen=True)
class _Flow:
    name: str
    through: Service
    text: str


async def run(plan: Plan, report: Report, site: Site) -> None:
    """At full speed, through the shim with both CLIs, and through LiteLLM's proxy."""
    count = plan.pick(5000, 2000)
    flows = [
        _Flow("the shim, real CLI", site.real.shim, f"::text {count}"),
        _Flow("the shim, fake CLI", site.fake.shim, f"!deltas {2 * count}"),
    ]
    if site.litellm is not None:
        flows.append(_Flow("LiteLLM's proxy", site.litellm, f"::text {count}"))
    for flow in flows:
        await _measure(plan, report, site, flow)


async def _measure(plan: Plan, report: Report, site: Site, flow: _Flow) -> None:
    speed = report.series(PART, f"{flow.name}: events", "1/s")
    cost = report.series(PART, f"{flow.name}: its CPU of 1,000", "ms")
    talk = Talk(site.http, flow.through.address, MODEL)
    await talk.say("hello")
    for _ in range(plan.pick(4, 2)):
        await rest()
        before = tree_cpu(flow.through.pid)
        told = await talk.say(flow.text)
        used = tree_cpu(flow.through.pid) - before
        speed.values.append(told.deltas / (told.whole - told.first_text))
        cost.values.append(used * 1e6 / told.deltas)
