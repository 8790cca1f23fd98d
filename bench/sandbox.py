"""What the sandbox costs: from a process's spawn to its first answer, with it and without."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

from warmline_service.config import CliSettings, SandboxSettings
from warmline_service.sandbox import Sandbox
from warmline_service.worker import Capabilities, Launcher, Site, SpawnKey, read_version
from warmline_service.worker._probe_model import ProbeModel

from bench.figures import Goal, Report
from bench.plan import Plan
from bench.procfs import rest

PART = "start of a process"


@asynccontextmanager
async def _launcher(plan: Plan, name: str, sandbox: Sandbox | None) -> AsyncIterator[Launcher]:
    settings = CliSettings(path=plan.binary)
    site = await Site.prepare(settings, plan.home / name / "slots", sandbox=sandbox)
    launcher = Launcher(
        site, ProbeModel().open_endpoint, Capabilities(await read_version(plan.binary))
    )
    try:
        yield launcher
    finally:
        await launcher.aclose()
        await site.aclose()


async def run(plan: Plan, report: Report) -> None:
    """Start one of each in turn."""
    strict = await asyncio.to_thread(Sandbox.find, SandboxSettings())
    async with AsyncExitStack() as stack:
        subjects = [
            ("without a sandbox", await stack.enter_async_context(_launcher(plan, "n", None))),
            ("in the sandbox", await stack.enter_async_context(_launcher(plan, "s", strict))),
        ]
        series = [report.series(PART, name, "ms", "to its first answer") for name, _ in subjects]
        for number in range(plan.rounds):
            order = list(zip(series, subjects, strict=True))
            for taken, (_, launcher) in order if number % 2 else order[::-1]:
                await rest()
                process = await launcher.start(SpawnKey())
                taken.values.append(process.spawn_seconds * 1000)
                await process.stop()
        report.ratio("start in the sandbox / without", series[1], series[0], Goal(1.2))
