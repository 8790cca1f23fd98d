"""Time to the first text: through the service, on a bare pipe, and with another client."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path

from warmline_client import Client, connect

from bench import calls
from bench.children import Service, model, service
from bench.figures import Goal, Report, Series
from bench.pipes import bare_pipe, print_mode
from bench.plan import Plan
from bench.procfs import rest
from bench.sdk import sdk_session

PART = "time to first text"
_STEADY = 4
# Between a caller's turns. The CLI still writes things down when it has answered.
_PAUSE = 0.05
_SPARES = 2  # One of each kind.
_TEXT = "hello"
_SYSTEM = "Answer in one line."

_WARM: dict[str, object] = {
    "pool__min_spares": 1,
    "pool__max_spares": 1,
    "pool__idle_ttl": 6,
}
_COLD: dict[str, object] = {
    "pool__min_spares": 0,
    "pool__max_spares": 0,
    "pool__idle_ttl": 1,
}


@dataclass(frozen=True)
class Site:
    """What all subjects share."""

    plan: Plan
    model: Path
    pooled: Service
    warm: Client
    cold: Client
    other_model: str


class Subjects:
    """Everything that is compared; each method takes one sample and more of what follows it."""

    def __init__(self, site: Site, report: Report) -> None:
        self._site = site
        self.discarded: list[str] = []

        def series(name: str, note: str = "") -> Series:
            return report.series(PART, name, "ms", note)

        self.bare_first = series("bare pipe, first turn", "of an initialised process")
        self.bare_steady = series("bare pipe, later turns")
        self.sdk_first = series("claude-agent-sdk, first turn", "client connected before")
        self.sdk_steady = series("claude-agent-sdk, later turns")
        self.print_mode = series("claude -p", "from its start")
        self.hot = series("service, hot")
        self.warm = series("service, warm", "new session; model and system prompt bound late")
        self.primed = series("service, warm primed", "new session with defaults")
        self.cold = series("service, cold", "with that model and system prompt")
        self.cold_plain = series("service, cold, with defaults")

    @property
    def all(self) -> list[Callable[[], Awaitable[None]]]:
        """One round."""
        return [
            self.sample_bare,
            self.sample_warm,
            self.sample_sdk,
            self.sample_primed,
            self.sample_print_mode,
            self.sample_cold,
            self.sample_cold_plain,
        ]

    async def sample_bare(self) -> None:
        """A bare pipe's first turn and later ones."""
        site = self._site
        async with bare_pipe(site.plan.home, site.plan.binary, site.model) as pipe:
            await pipe.initialize()
            await rest()
            _add(self.bare_first, await pipe.turn(_TEXT))
            await rest()
            for _ in range(_STEADY):
                _add(self.bare_steady, await pipe.turn(_TEXT))
                await asyncio.sleep(_PAUSE)

    async def sample_sdk(self) -> None:
        """The same with the SDK's client."""
        site = self._site
        async with sdk_session(site.plan.home, site.plan.binary, site.model) as session:
            await rest()
            _add(self.sdk_first, await session.turn(_TEXT))
            await rest()
            for _ in range(_STEADY):
                _add(self.sdk_steady, await session.turn(_TEXT))
                await asyncio.sleep(_PAUSE)

    async def sample_print_mode(self) -> None:
        """A process for one turn alone."""
        site = self._site
        await rest()
        _add(self.print_mode, await print_mode(site.plan.home, site.plan.binary, site.model))

    async def sample_warm(self) -> None:
        """A spare bound to a new session, then the session's hot turns."""
        site = self._site
        await self._full_pool()
        async with calls.first_turn(
            site.warm, _TEXT, model=site.other_model, append_system=_SYSTEM
        ) as (conversation, first):
            self._keep(self.warm, first, "WARM")
            # The spare that was taken has been replaced, so that nothing else starts meanwhile.
            await self._full_pool(beside=1)
            for _ in range(_STEADY):
                self._keep(self.hot, await calls.turn(conversation, _TEXT), "HOT")
                await asyncio.sleep(_PAUSE)

    async def sample_primed(self) -> None:
        """A primed spare for a new session."""
        await self._full_pool()
        async with calls.first_turn(self._site.warm, _TEXT) as (_, first):
            self._keep(self.primed, first, "WARM")

    async def sample_cold(self) -> None:
        """A new session of a service without spares."""
        site = self._site
        await rest()
        async with calls.first_turn(
            site.cold, _TEXT, model=site.other_model, append_system=_SYSTEM
        ) as (_, first):
            self._keep(self.cold, first, "COLD")

    async def sample_cold_plain(self) -> None:
        """The same with defaults."""
        await rest()
        async with calls.first_turn(self._site.cold, _TEXT) as (_, first):
            self._keep(self.cold_plain, first, "COLD")

    async def _full_pool(self, beside: int = 0) -> None:
        await self._site.pooled.has_processes(_SPARES + beside)
        await rest()

    def _keep(self, series: Series, timed: calls.Timed, wanted: str) -> None:
        """Take a sample, unless its receipt says that it was another kind of start."""
        if timed.start == wanted:
            _add(series, timed.first_text)
        else:
            misses = ", ".join(timed.receipt.misses) or "no reason given"
            self.discarded.append(f"{series.name}: {timed.start} ({misses})")


async def run(plan: Plan, report: Report) -> None:
    """Let the subjects take turns, each round beginning with another one."""
    async with AsyncExitStack() as stack:
        enter = stack.enter_async_context
        socket = await enter(model(plan.home))
        pooled = await enter(service(plan.home, "w", _WARM))
        spareless = await enter(service(plan.home, "c", _COLD))
        warm = await enter(connect(pooled.address))
        cold = await enter(connect(spareless.address))
        other = next(each for each in await warm.models() if not each.is_default)
        name = other.aliases[0] if other.aliases else other.id
        subjects = Subjects(Site(plan, socket, pooled, warm, cold, name), report)
        order = subjects.all
        try:
            for number in range(plan.rounds):
                first = number % len(order)
                for sample in (*order[first:], *order[:first]):
                    await sample()
        finally:
            _conclude(subjects, report)


def _conclude(subjects: Subjects, report: Report) -> None:
    ratio = report.ratio
    ratio("hot / bare pipe, later turns", subjects.hot, subjects.bare_steady, Goal(1.15))
    ratio("warm / bare pipe, first turn", subjects.warm, subjects.bare_first, Goal(1.2))
    ratio("cold / warm", subjects.cold, subjects.warm, Goal(2.5, at_least=True))
    aim = Goal(5, at_least=True, firm=False)
    ratio("cold / warm primed, with defaults", subjects.cold_plain, subjects.primed, aim)
    report.remarks += [f"discarded, {each}" for each in subjects.discarded]


def _add(series: Series, seconds: float) -> None:
    series.values.append(seconds * 1000)
