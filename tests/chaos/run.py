"""One run: conversations under faults, then silence, then the checks."""

from __future__ import annotations

import asyncio
import random
import shutil
import sqlite3
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, closing
from pathlib import Path
from typing import Any

import fake_cli
import grpc
from warmline.v1 import session_service_pb2 as pb
from warmline.v1 import session_service_pb2_grpc as pb_grpc
from warmline_client import connect

from chaos.checks import SessionCheck, Violation, goes_on
from chaos.database import running_database
from chaos.faults import Injector
from chaos.model import counting_model
from chaos.plan import kinds_for, schedule
from chaos.proxy import tcp_proxy
from chaos.seen import Seen
from chaos.service import ServiceProcess, free_port
from chaos.talker import Line, Message, Observer, replay
from chaos.world import Options, World

# What each session still gets when the faults are over, in seconds.
_QUIET = 60.0
_LAST_TURN = 30.0
_CATCH_UP = 20.0
_ORPHANS = 5.0
_CALL = 30.0
# The real CLI takes longer to start, and has to come to its answers between faults.
_REAL_PACE = 5.0

Progress = Callable[[str], None]


async def run(options: Options, home: Path, progress: Progress) -> tuple[World, list[Violation]]:
    """Make the faults and check; gives what was done and what was not kept."""
    rng = random.Random(options.seed)
    async with _world(options, home) as world:
        watching = [
            asyncio.create_task(Observer(line, proxy.address, random.Random(options.seed)).run())
            for line, proxy in zip(world.lines, world.observers, strict=True)
        ]
        try:
            for line in world.lines:
                own = random.Random(rng.getrandbits(32))
                world.talkers[line.number] = world.talk(line, own)
            kinds = kinds_for(options.store, disk=options.disk)
            pace = _REAL_PACE if options.real_cli else 1.0
            faults = schedule(rng.getrandbits(32), options.faults, kinds, pace)
            await Injector(world).run(faults, progress)
            violations = await _afterwards(world, progress)
        finally:
            for task in (*watching, *world.running):
                task.cancel()
            await asyncio.gather(*watching, *world.running, return_exceptions=True)
        await world.service.stop()
        violations += [Violation(-1, what) for what in await _left(world)]
    return world, violations


async def _afterwards(world: World, progress: Progress) -> list[Violation]:
    """No more faults: everything comes to its end, and the sessions go on."""
    progress("no more faults: waiting for every message's end")
    world.stopping = True
    await _finished(world, _QUIET)
    last = [_say_more(world, line) for line in world.lines]
    await _finished(world, _LAST_TURN)
    progress("checking")
    return [each async for each in _checked(world, last)]


def _say_more(world: World, line: Line) -> Callable[[], Message]:
    world.talk(line, random.Random(world.options.seed), messages=1)
    return lambda: line.messages[-1]


async def _finished(world: World, timeout: float) -> None:
    """Wait for the clients; one that fails says so here, one that is late is found by the checks."""
    done, _ = await asyncio.wait(world.running, timeout=timeout)
    for task in done:
        task.result()
    world.running -= done


async def _checked(world: World, last: list[Callable[[], Message]]) -> AsyncIterator[Violation]:
    sessions = await _listed(world)
    async with connect(world.service.address) as client:
        for line, message in zip(world.lines, last, strict=True):
            async with asyncio.timeout(_CALL):
                journal = await replay(client, line.id) if line.id else []
            _keep(world, line, journal)
            await _caught_up(line, journal)
            check = SessionCheck(line, journal, world.model, sessions.get(line.id))
            for violation in (*check.violations(), *goes_on(line, message(), world.model)):
                yield violation


def _keep(world: World, line: Line, journal: list[Seen]) -> None:
    """Write down what there was of a session, for who looks for the cause of a violation."""
    path = world.data_dir.with_name(f"session-{line.number}.txt")
    told = [f"{each.mark} {each.key} {each.end}" for each in line.messages]
    path.write_text("\n".join([line.id, *told, *map(str, journal)]), encoding="utf-8")


async def _caught_up(line: Line, journal: list[Seen]) -> None:
    """Wait until the observer has come as far; where it does not, the checks say so."""
    wanted = [each.seq for each in journal if line.raw or each.kind != "raw"]
    until = time.monotonic() + _CATCH_UP
    while wanted and time.monotonic() < until:
        if line.observed and line.observed[-1].seq >= wanted[-1]:
            return
        await asyncio.sleep(0.05)


async def _listed(world: World) -> dict[str, pb.Session]:
    found: dict[str, pb.Session] = {}
    request = pb.ListSessionsRequest(page_size=100)
    async with grpc.aio.insecure_channel(world.service.address) as channel:
        stub = pb_grpc.SessionServiceStub(channel)
        while True:
            page = await stub.ListSessions(request, timeout=_CALL)
            found |= {each.id: each for each in page.sessions}
            if not page.next_page_token:
                return found
            request.page_token = page.next_page_token


async def _left(world: World) -> list[str]:
    """What is there of processes, slots and sockets after the last stop; what is wrong with the file."""
    wrong = list(world.service.bad_ends)
    until = time.monotonic() + _ORPHANS
    while (orphans := world.service.cli_processes()) and time.monotonic() < until:
        await asyncio.sleep(0.05)
    if orphans:
        wrong.append(f"orphans: {orphans}")
    left = [path for path in world.data_dir.rglob("*") if path.is_socket()]
    left += world.data_dir.glob("slots/*/")
    if left:
        wrong.append(f"left behind: {sorted(map(str, left))}")
    if world.options.store == "sqlite":
        with closing(sqlite3.connect(world.data_dir / "warmline.db")) as database:
            said = database.execute("PRAGMA integrity_check").fetchall()
        if said != [("ok",)]:
            wrong.append(f"integrity_check: {said}")
    return wrong


@asynccontextmanager
async def _world(options: Options, home: Path) -> AsyncIterator[World]:
    async with AsyncExitStack() as stack:
        postgres = None
        if options.store == "postgres":
            postgres = await stack.enter_async_context(running_database(home))
        model, model_url = await stack.enter_async_context(counting_model())
        port = free_port()
        proxies = [
            await stack.enter_async_context(tcp_proxy(port)) for _ in range(2 * options.sessions)
        ]
        settings = _settings(options, home, model_url, postgres.url if postgres else "")
        service = ServiceProcess(port, home / "d", home / "service.log", settings)
        world = World(
            options, model, service, proxies[::2], proxies[1::2], postgres, list(_lines(options))
        )
        stack.push_async_callback(service.kill)
        await service.start()
        yield world


def _lines(options: Options) -> Iterator[Line]:
    for number in range(options.sessions):
        # One has pauses in which its process goes; every other is watched with all its raw lines.
        yield Line(number, raw=number % 2 == 1, pause=4.0 if number == 2 else 0.15)


def _settings(options: Options, home: Path, model_url: str, store_url: str) -> dict[str, Any]:
    """Small bounds, so that a short run comes to them."""
    key = home / "key"
    key.write_text("no-key", encoding="utf-8")
    settings = {
        "provider__kind": "anthropic",
        "provider__base_url": model_url,
        "provider__api_key_file": key,
        "cli__max_retries": 0,
        "cli__interrupt_timeout": 1,
        "cli__stop_timeout": 1,
        "pool__min_spares": 1,
        "pool__max_spares": 2,
        "pool__max_processes": 3 * options.sessions,
        "pool__idle_ttl": 2,
        "pool__start_backoff": 0.1,
        "drain_grace": 1,
        "limits__stall_timeout": 20,
        "limits__flush_timeout": 5,
        "store__outage_grace": 2,
        "store__lease_ttl": 3,
        "store__spill_bytes": 1024,
        "log__format": "json",
    }
    if store_url:
        settings["store__url"] = store_url
    if not options.real_cli:
        settings["cli__path"] = fake_cli.install(home / "fake")
        settings["sandbox__level"] = "none"
    return settings


def make_home() -> Path:
    """A directory for a run; short, because a socket's path has at most 107 bytes."""
    home = Path(tempfile.mkdtemp(prefix="wlc-", dir="/tmp"))
    (home / "d").mkdir(mode=0o700)
    return home


def remove_home(home: Path) -> None:
    """Remove it."""
    shutil.rmtree(home)
