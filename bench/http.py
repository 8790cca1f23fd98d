"""The HTTP shim as a process of its own: what it adds, how fast events pass, and many idle streams."""

from __future__ import annotations

from contextlib import AsyncExitStack

from warmline_client import connect

from bench import http_first_text, http_flow, http_idle
from bench.children import model_on_tcp, service, shim
from bench.figures import Report
from bench.http_site import MODEL, Side, Site
from bench.litellm import Unavailable, proxy
from bench.load import build_generator
from bench.plan import Plan
from bench.sse import http_client

_REAL: dict[str, object] = {
    "pool__min_spares": 0,
    "pool__max_spares": 0,
}


async def run(plan: Plan, report: Report) -> None:
    """The same site for what is compared, and one of its own for the idle streams."""
    fake = build_generator(plan.home / "fake")
    async with AsyncExitStack() as stack:
        site = await _site(plan, report, stack, {**_REAL, "cli__path": fake})
        await http_first_text.run(plan, report, site)
        await http_flow.run(plan, report, site)
    await http_idle.run(plan, report, fake)


async def _site(
    plan: Plan, report: Report, stack: AsyncExitStack, faking: dict[str, object]
) -> Site:
    async def side(name: str, settings: dict[str, object]) -> Side:
        running = await stack.enter_async_context(service(plan.home, name, settings))
        before = await stack.enter_async_context(shim(plan.home, running))
        client = await stack.enter_async_context(connect(running.address))
        return Side(running, before, client)

    upstream = await stack.enter_async_context(model_on_tcp(plan.home))
    try:
        litellm = await stack.enter_async_context(proxy(plan.home, upstream, MODEL))
    except Unavailable as error:
        report.remarks.append(f"LiteLLM's proxy was not measured: {error}")
        litellm = None
    http = await stack.enter_async_context(http_client())
    real, fake = await side("hr", _REAL), await side("hf", faking)
    return Site(real, fake, upstream, litellm, http)
