"""Makes faults, one after another, while conversations run."""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import signal
import time
from collections.abc import Awaitable, Callable, Sequence

from chaos.database import Postgres, fill_disk
from chaos.plan import Fault, Kind
from chaos.world import World

# How long a fault waits for something that it can be done to, in seconds.
_PATIENCE = 30.0
_LOOK_EVERY = 0.05

# Does a fault; says to what, or nothing where there was nothing.
Doing = Callable[[World, random.Random], Awaitable[str]]


class Injector:
    """Makes a schedule's faults; those of one part of the world never at the same time."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._locks = {"SERVICE": asyncio.Lock(), "DB": asyncio.Lock()}

    async def run(self, faults: Sequence[Fault], progress: Callable[[str], None]) -> None:
        """Make them all, or until somebody has been told what nobody should be."""
        async with asyncio.TaskGroup() as group:
            for fault in faults:
                await asyncio.sleep(fault.pause)
                if any(line.complaints for line in self._world.lines):
                    return
                lock = self._locks.get(fault.kind.name.partition("_")[0])
                if lock is None:
                    await self._make(fault)
                else:
                    await lock.acquire()
                    group.create_task(self._make_alone(fault, lock))
                if fault.number % 50 == 49:
                    progress(f"{fault.number + 1} faults")

    async def _make_alone(self, fault: Fault, lock: asyncio.Lock) -> None:
        try:
            await self._make(fault)
        finally:
            lock.release()

    async def _make(self, fault: Fault) -> None:
        rng, tally = random.Random(fault.seed), self._world.tally
        until = time.monotonic() + _PATIENCE
        began = time.strftime("%H:%M:%S")
        while not (done := await _DOING[fault.kind](self._world, rng)):
            if time.monotonic() > until:
                tally.missed[fault.kind.value] += 1
                return
            await asyncio.sleep(_LOOK_EVERY)
        tally.done[fault.kind.value] += 1
        tally.told.append(f"{began} #{fault.number} {fault.kind.name} {done}")


def _kill(pids: Sequence[int]) -> str:
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    return " ".join(map(str, pids))


async def _cli_kill(world: World, rng: random.Random) -> str:
    pids = world.service.cli_processes()
    return _kill(rng.sample(pids, 1)) if pids else ""


async def _cli_kill_all(world: World, rng: random.Random) -> str:
    return _kill(world.service.cli_processes())


async def _settle(rng: random.Random) -> None:
    """Let it live for a while before the next of the kind."""
    await asyncio.sleep(rng.uniform(0.2, 2.0))


async def _service_kill(world: World, rng: random.Random) -> str:
    pid = world.service.pid
    await world.service.kill()
    await asyncio.sleep(rng.choice((0.0, rng.uniform(0, 1))))
    await world.service.start()
    await _settle(rng)
    return f"{pid}"


async def _service_drain(world: World, rng: random.Random) -> str:
    pid = world.service.pid
    await world.service.stop()
    await world.service.start()
    await _settle(rng)
    return f"{pid}"


async def _service_kill_draining(world: World, rng: random.Random) -> str:
    pid = world.service.pid
    world.service.terminate()
    await asyncio.sleep(rng.uniform(0, 0.8))
    await world.service.kill()
    await world.service.start()
    await _settle(rng)
    return f"{pid}"


async def _service_kill_starting(world: World, rng: random.Random) -> str:
    pid = world.service.pid
    await world.service.kill()
    await world.service.spawn()
    await asyncio.sleep(rng.uniform(0, 2))
    await world.service.kill()
    await world.service.start()
    await _settle(rng)
    return f"{pid}"


def _said(count: int) -> str:
    return f"{count} connections" if count else ""


async def _client_reset(world: World, rng: random.Random) -> str:
    return _said(rng.choice(world.clients).reset())


async def _client_stall(world: World, rng: random.Random) -> str:
    return _said(await rng.choice(world.clients).stall(rng.uniform(0.1, 1.5)))


async def _client_cut(world: World, rng: random.Random) -> str:
    return _said(rng.choice(world.clients).cut_after(rng.randint(1, 3000)))


async def _client_cancel(world: World, rng: random.Random) -> str:
    number = rng.choice(list(world.talkers))
    return f"session {number}" if world.talkers[number].cancel() else ""


async def _client_takeover(world: World, rng: random.Random) -> str:
    line = rng.choice(world.lines)
    if not line.id:
        return ""
    world.talk(line, random.Random(rng.getrandbits(32)), messages=1)
    return f"session {line.number}"


async def _observer_reset(world: World, rng: random.Random) -> str:
    return _said(rng.choice(world.observers).reset())


def _postgres(world: World) -> Postgres:
    assert world.postgres is not None
    return world.postgres


async def _db_kill(world: World, rng: random.Random) -> str:
    await _postgres(world).kill()
    down = rng.uniform(0, 4)
    await asyncio.sleep(down)
    await _postgres(world).start()
    return f"down for {down:.1f} s"


async def _db_terminate(world: World, rng: random.Random) -> str:
    await _postgres(world).terminate()
    return "every connection"


async def _db_freeze(world: World, rng: random.Random) -> str:
    seconds = rng.uniform(0.1, 4)
    await _postgres(world).freeze(seconds)
    return f"for {seconds:.1f} s"


async def _db_reset(world: World, rng: random.Random) -> str:
    return _said(_postgres(world).proxy.reset())


async def _db_lost_answer(world: World, rng: random.Random) -> str:
    return _said(_postgres(world).proxy.lose_answer())


async def _disk_full(world: World, rng: random.Random) -> str:
    seconds = rng.uniform(0.1, 4)
    await fill_disk(world.data_dir, seconds)
    return f"for {seconds:.1f} s"


_DOING: dict[Kind, Doing] = {
    Kind.CLI_KILL: _cli_kill,
    Kind.CLI_KILL_ALL: _cli_kill_all,
    Kind.SERVICE_KILL: _service_kill,
    Kind.SERVICE_DRAIN: _service_drain,
    Kind.SERVICE_KILL_DRAINING: _service_kill_draining,
    Kind.SERVICE_KILL_STARTING: _service_kill_starting,
    Kind.CLIENT_RESET: _client_reset,
    Kind.CLIENT_STALL: _client_stall,
    Kind.CLIENT_CUT: _client_cut,
    Kind.CLIENT_CANCEL: _client_cancel,
    Kind.CLIENT_TAKEOVER: _client_takeover,
    Kind.OBSERVER_RESET: _observer_reset,
    Kind.DB_KILL: _db_kill,
    Kind.DB_TERMINATE: _db_terminate,
    Kind.DB_FREEZE: _db_freeze,
    Kind.DB_RESET: _db_reset,
    Kind.DB_LOST_ANSWER: _db_lost_answer,
    Kind.DISK_FULL: _disk_full,
}
