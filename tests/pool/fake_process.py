"""A process that does in virtual time what a test tells it to."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from random import Random

from warmline_service.config import MIB, PoolSettings
from warmline_service.errors import Reason, WarmlineError
from warmline_service.pool import Pool, PooledProcess, PoolEvents, Want
from warmline_service.worker import Exit, Life, SpawnKey

FRESH = SpawnKey()


class FakeProcess:
    """Ends when stopped, after `stop_seconds`."""

    def __init__(self, number: int, key: SpawnKey) -> None:
        self.id = f"fake-{number}"
        self.key = key
        self.life = Life()
        self.exited: asyncio.Future[Exit] = asyncio.get_running_loop().create_future()
        self.stops = 0
        self.answers = True
        self.size = 100 * MIB
        self.stop_seconds = 0.05

    def die(self) -> None:
        """End by itself."""
        if not self.exited.done():
            self.exited.set_result(Exit(1, None, "", "exited with code 1"))

    async def ping(self) -> None:
        """Answer, or not."""
        await asyncio.sleep(0.001)
        if not self.answers:
            raise WarmlineError(Reason.CLI_CRASHED, "No answer.")

    def memory_bytes(self) -> int:
        """As set."""
        return self.size

    async def stop(self) -> None:
        """End, in a while."""
        self.stops += 1
        await asyncio.sleep(self.stop_seconds)
        self.die()


class Factory:
    """Launches fakes: after `seconds`, failing as long as `error` is set."""

    def __init__(self) -> None:
        self.made: list[FakeProcess] = []
        self.tried = 0
        self.seconds = 0.2
        self.error: Exception | None = None

    async def __call__(self, key: SpawnKey) -> FakeProcess:
        """Launch one."""
        self.tried += 1
        await asyncio.sleep(self.seconds)
        if self.error is not None:
            raise self.error
        self.made.append(FakeProcess(len(self.made), key))
        return self.made[-1]

    @property
    def running(self) -> list[FakeProcess]:
        """Those that have not ended."""
        return [process for process in self.made if not process.exited.done()]


async def measure_here(processes: Sequence[PooledProcess]) -> Sequence[int]:
    """Without a thread."""
    return [process.memory_bytes() for process in processes]


@asynccontextmanager
async def pool_of(
    factory: Factory,
    *,
    budget: int = 10_000 * MIB,
    spare_keys: tuple[SpawnKey, ...] = (FRESH,),
    events: PoolEvents | None = None,
    **limits: object,
) -> AsyncIterator[Pool[FakeProcess]]:
    """A started pool, closed at the end; nothing may be left of it then."""
    defaults = {"max_processes": 3, "min_spares": 0, "max_spares": 0}
    pool = Pool(
        PoolSettings.model_validate(defaults | limits),
        factory,
        spare_keys=spare_keys,
        memory_budget=budget,
        rng=Random(1),  # noqa: S311 - the same run each time
        events=events,
        measure=measure_here,
    )
    await pool.start()
    try:
        yield pool
    finally:
        await pool.aclose()
        assert not factory.running, "a process outlived the pool"


def want(session: str, tenant: str = "ann", *keys: SpawnKey) -> Want:
    """A want of a session."""
    return Want(tenant, session, keys or (FRESH,))


def soon(seconds: float = 5.0) -> float:
    """A deadline in loop time."""
    return asyncio.get_running_loop().time() + seconds
