"""Time to the first text of a hot turn over HTTP, beside gRPC, LiteLLM's proxy and the model itself."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from dataclasses import dataclass

from warmline.v1 import session_config_pb2 as config_pb
from warmline_client import Client

from bench import calls
from bench.figures import Finding, Goal, Report, Series
from bench.http_site import MODEL, Side, Site
from bench.plan import Plan
from bench.procfs import rest
from bench.sse import Talk

PART = "HTTP: time to first text of later turns"
_STEADY = 10
_PAUSE = 0.05
_GOAL = Goal(3.0)
_HELLO = "hello"
_DELTA = "!deltas 1"
# As the shim sets up who only asks for an answer.
_CONFIG = config_pb.SessionConfig(model=MODEL, profile=config_pb.PROFILE_BARE)

# Says something more, and gives the seconds to the first text; None where the turn was not hot.
Say = Callable[[], Awaitable[float | None]]


@dataclass(frozen=True)
class _Subject:
    series: Series
    begin: Callable[[], AbstractAsyncContextManager[Say]]


@dataclass(frozen=True)
class _Pair:
    """What one subject adds to another; `added` turn by turn."""

    over: _Subject
    under: _Subject
    added: Series
    goal: Goal | None = None

    def take(self, turn: Mapping[str, float]) -> None:
        """A turn that both had, in milliseconds by the subject's name."""
        over, under = turn.get(self.over.series.name), turn.get(self.under.series.name)
        if over is not None and under is not None:
            self.added.values.append(over - under)

    def conclude(self, report: Report) -> None:
        """By the medians of both: single turns differ by more than is added."""
        if self.goal is not None and self.added.values:
            difference = self.over.series.median - self.under.series.median
            report.findings.append(Finding(f"{self.added.name}, ms", difference, self.goal))


async def run(plan: Plan, report: Report, site: Site) -> None:
    """In rounds; in each every subject begins a conversation, and they take turns in going on with theirs."""
    subjects, pairs = _line_up(report, site)
    for number in range(max(1, plan.rounds // 2)):
        for turn in await _round(subjects, number, report):
            for pair in pairs:
                pair.take(turn)
    for pair in pairs:
        pair.conclude(report)


def _line_up(report: Report, site: Site) -> tuple[list[_Subject], list[_Pair]]:
    def subject(
        name: str, begin: Callable[[], AbstractAsyncContextManager[Say]], note: str = ""
    ) -> _Subject:
        return _Subject(report.series(PART, name, "ms", note), begin)

    def pair(name: str, over: _Subject, under: _Subject, goal: Goal | None = None) -> _Pair:
        return _Pair(over, under, report.series(PART, f"added by {name}", "ms", "by turns"), goal)

    real, fake = site.real, site.fake
    grpc = subject("gRPC", lambda: _by_grpc(real.client, _HELLO), "a stream that stays open")
    anew = subject("gRPC, a stream for each turn", lambda: _by_streams(real.client, _HELLO))
    http = subject("HTTP", lambda: _by_shim(site, real, _HELLO), "/v1/messages")
    quick_grpc = subject("gRPC, fake CLI", lambda: _by_grpc(fake.client, _DELTA))
    quick_http = subject("HTTP, fake CLI", lambda: _by_shim(site, fake, _DELTA))
    direct = subject("the model by itself, plain POST", lambda: _by_post(site, site.model))
    subjects = [grpc, anew, http, quick_grpc, quick_http, direct]
    pairs = [
        pair("HTTP to gRPC", http, grpc, _GOAL),
        pair("HTTP to gRPC, fake CLI", quick_http, quick_grpc, _GOAL),
    ]
    if site.litellm is not None:
        url = site.litellm.address
        proxied = subject("LiteLLM's proxy before the model", lambda: _by_post(site, url))
        subjects.append(proxied)
        pairs.append(pair("LiteLLM's proxy to the model", proxied, direct))
    return subjects, pairs


async def _round(subjects: list[_Subject], number: int, report: Report) -> list[dict[str, float]]:
    """What was taken in each turn, in milliseconds by the subject's name."""
    turns: list[dict[str, float]] = []
    async with AsyncExitStack() as stack:
        begun = [(each, await stack.enter_async_context(each.begin())) for each in subjects]
        await rest()
        for turn in range(_STEADY):
            first = (number + turn) % len(begun)
            turns.append({})
            for subject, say in (*begun[first:], *begun[:first]):
                seconds = await say()
                name = subject.series.name
                if seconds is None:
                    report.remarks.append(f"discarded, {name}: not hot")
                else:
                    subject.series.values.append(seconds * 1000)
                    turns[-1][name] = seconds * 1000
                await asyncio.sleep(_PAUSE)
    return turns


@asynccontextmanager
async def _by_grpc(client: Client, text: str) -> AsyncIterator[Say]:
    async with client.chat(config=_CONFIG) as conversation:
        await calls.turn(conversation, text)

        async def say() -> float | None:
            return _hot(await calls.turn(conversation, text))

        yield say
    await client.delete(conversation.session_id)


@asynccontextmanager
async def _by_streams(client: Client, text: str) -> AsyncIterator[Say]:
    async with client.chat(config=_CONFIG) as conversation:
        await calls.turn(conversation, text)
        session = conversation.session_id

    async def say() -> float | None:
        begun = time.perf_counter()
        async with client.chat(session_id=session) as conversation:
            return _hot(await calls.turn(conversation, text, begun))

    yield say
    await client.delete(session)


@asynccontextmanager
async def _by_shim(site: Site, side: Side, text: str) -> AsyncIterator[Say]:
    talk = Talk(site.http, side.shim.address, MODEL)
    session = (await talk.say(text)).session

    async def say() -> float | None:
        said = await talk.say(text)
        # Another session's process would have to be told what was said before.
        return said.first_text if said.session == session else None

    yield say
    # With its process: many that are kept would fill the machine.
    await side.client.delete(session)


@asynccontextmanager
async def _by_post(site: Site, url: str) -> AsyncIterator[Say]:
    talk = Talk(site.http, url, MODEL)
    await talk.say(_HELLO)

    async def say() -> float:
        return (await talk.say(_HELLO)).first_text

    yield say


def _hot(timed: calls.Timed) -> float | None:
    return timed.first_text if timed.start == "HOT" else None
