"""The pool's shell: performs what the core decides, and tells the core what came of it."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Iterable
from functools import partial
from random import Random
from typing import Generic

import structlog

from warmline_service.config import PoolSettings
from warmline_service.pool._actions import Action, Grant, Launch, Ping, Refuse, Stop, Wake, Weigh
from warmline_service.pool._books import Member
from warmline_service.pool._core import Core
from warmline_service.pool._events import PoolEvents, SilentEvents
from warmline_service.pool._lease import Lease, LeaseOps, P
from warmline_service.pool._process import Measure, measure_in_thread
from warmline_service.pool._stats import PoolStats, describe, stats_of
from warmline_service.pool._tasks import Tasks
from warmline_service.pool._want import Waiter, Want
from warmline_service.worker import Exit, ProcessState, SpawnKey

_TICK = 1.0
_PING_TIMEOUT = 30.0

_log = structlog.get_logger(__name__)


class Pool(Generic[P]):
    """A bounded set of processes, lent to sessions.

    `launch` makes a process that is up and answers; `memory_budget` is bytes for all of them.
    `launch_timeout` and `stop_timeout`, in seconds, lie above the bounds that launches and stops
    keep themselves. `start` before the first `acquire`, `aclose` at the end, on one event loop.
    """

    def __init__(
        self,
        settings: PoolSettings,
        launch: Callable[[SpawnKey], Awaitable[P]],
        *,
        spare_keys: tuple[SpawnKey, ...],
        memory_budget: int,
        rng: Random | None = None,
        events: PoolEvents | None = None,
        measure: Measure = measure_in_thread,
        launch_timeout: float = 120.0,
        stop_timeout: float = 30.0,
    ) -> None:
        self._core = Core(
            settings,
            spare_keys=spare_keys,
            memory_budget=memory_budget,
            rng=rng or Random(),  # noqa: S311 - spreads retirements, protects nothing
        )
        self._settings = settings
        self._launch = launch
        self._events = events or SilentEvents()
        self._measure = measure
        self._launch_timeout = launch_timeout
        self._stop_timeout = stop_timeout
        self._ops = LeaseOps(self._core.bound, self._begin_turn, self._release)
        self._promises: dict[Waiter, asyncio.Future[Lease[P]]] = {}
        self._processes: dict[Member, P] = {}
        self._spawn_seconds: dict[Member, float] = {}
        self._starts: dict[Member, asyncio.Task[P]] = {}
        self._stops: dict[Member, asyncio.Task[None]] = {}
        self._pending: deque[Action] = deque()
        self._performing = False
        self._timers: list[asyncio.TimerHandle] = []
        self._lives = Tasks()
        self._care = Tasks()

    async def start(self) -> None:
        """Begin to fill up with spares, in the background, and to look after what there is."""
        self._care.spawn(self._keep(), "pool-keeper")
        self._apply(self._core.tick(self._now()))

    async def acquire(self, want: Want, deadline: float) -> Lease[P]:
        """Get a process for a session by `deadline` (loop time; the settings may end it earlier).

        Raises WarmlineError: POOL_EXHAUSTED or QUEUE_FULL (both say when to retry), DRAINING, or
        why starts fail; SessionHasLease when the session already has a lease or waits for one.
        """
        loop = asyncio.get_running_loop()
        now = loop.time()
        waiter = Waiter(want, now, min(deadline, now + self._settings.acquire_timeout))
        promise: asyncio.Future[Lease[P]] = loop.create_future()
        self._promises[waiter] = promise
        timer = loop.call_at(waiter.deadline, self._expire, waiter)
        try:
            self._apply(self._core.want(now, waiter))
            return await promise
        except asyncio.CancelledError:
            self._give_up(waiter, promise)
            raise
        finally:
            timer.cancel()
            del self._promises[waiter]

    def forget(self, session_id: str) -> None:
        """A session is over: stop the process it has."""
        self._apply(self._core.forget(self._now(), session_id))

    def retire(self) -> None:
        """Replace every process, those in use after their turn: the configuration has changed."""
        self._apply(self._core.retire(self._now()))

    def begin_drain(self) -> None:
        """Refuse what is new; sessions with a process of their own may go on until `aclose`."""
        self._apply(self._core.drain(self._now()))

    async def aclose(self) -> None:
        """Stop every process and wait for the ends, within a bound; leaves no task behind."""
        self._apply(self._core.close(self._now()))
        for timer in self._timers:
            timer.cancel()
        self._timers.clear()
        await self._care.cancelled()
        if not await self._lives.ended(self._now() + self._stop_timeout + 1.0):
            _log.error("pool_close_timeout", pool=repr(self))
            await self._lives.cancelled()

    def stats(self) -> PoolStats:
        """The pool in numbers."""
        return stats_of(self._core, self._now())

    def __repr__(self) -> str:
        return describe(self._core)

    # What leases and callers do.

    def _begin_turn(self, member: Member) -> None:
        self._core.turn_begun(self._now(), member)

    def _release(self, member: Member, poisoned: bool) -> None:
        self._apply(self._core.release(self._now(), member, poisoned=poisoned))

    def _expire(self, waiter: Waiter) -> None:
        # A timer may fire a clock tick early; the deadline has come all the same.
        self._apply(self._core.expire(max(self._now(), waiter.deadline)))

    def _give_up(self, waiter: Waiter, promise: asyncio.Future[Lease[P]]) -> None:
        """The caller was cancelled; an answer that it never saw must not be lost."""
        if promise.cancelled() or not promise.done():
            self._apply(self._core.cancel(self._now(), waiter))
        elif promise.exception() is None:
            promise.result().release()

    # What the core decides.

    def _apply(self, actions: Iterable[Action]) -> None:
        """Perform actions in order; those that an action brings about come after all the others."""
        self._pending.extend(actions)
        if self._performing:
            return
        self._performing = True
        try:
            while self._pending:
                self._perform(self._pending.popleft())
        finally:
            self._performing = False

    def _perform(self, action: Action) -> None:
        match action:
            case Grant():
                self._grant(action)
            case Refuse(waiter, error):
                self._events.refused(error.reason)
                if not self._promises[waiter].done():
                    self._promises[waiter].set_exception(error)
            case Launch(member):
                task = self._lives.spawn(self._start_one(member.key), f"pool-start-{member.number}")
                self._starts[member] = task
                task.add_done_callback(partial(self._on_start_ended, member))
            case Stop(member, why):
                self._events.stopped(why)
                self._stop(member)
            case Ping(member):
                self._care.spawn(self._ping(member), f"pool-ping-{member.number}")
            case Weigh(members):
                self._care.spawn(self._weigh(members), "pool-weigh")
            case Wake(at):
                self._wake_at(at)

    def _grant(self, grant: Grant) -> None:
        seconds = self._now() - grant.waiter.since
        lease = Lease(
            self._ops,
            grant.member,
            self._processes[grant.member],
            start=grant.start,
            misses=grant.misses,
            queue_seconds=seconds,
            spawn_seconds=self._spawn_seconds[grant.member],
        )
        promise = self._promises[grant.waiter]
        if promise.done():
            lease.release()  # Its caller was cancelled a moment ago.
        else:
            self._events.granted(grant.start, grant.misses, seconds)
            promise.set_result(lease)

    def _wake_at(self, at: float) -> None:
        def wake() -> None:
            self._timers.remove(timer)
            # A timer may fire a clock tick early.
            self._apply(self._core.tick(max(self._now(), at)))

        timer = asyncio.get_running_loop().call_at(at, wake)
        self._timers.append(timer)

    def _stop(self, member: Member) -> None:
        process = self._processes.get(member)
        if process is not None and member not in self._stops:
            task = self._lives.spawn(self._stop_one(process), f"pool-stop-{member.number}")
            self._stops[member] = task
            task.add_done_callback(lambda _: self._stops.pop(member))
        elif member in self._starts:
            self._starts[member].cancel()

    # What becomes of it.

    async def _start_one(self, key: SpawnKey) -> P:
        async with asyncio.timeout(self._launch_timeout):
            return await self._launch(key)

    def _on_start_ended(self, member: Member, task: asyncio.Task[P]) -> None:
        del self._starts[member]
        now = self._now()
        error = asyncio.CancelledError() if task.cancelled() else task.exception()
        if error is None:
            self._adopt(now, member, task.result())
            return
        if member.state is not ProcessState.STOPPING:
            _log.warning("process_start_failed", key=repr(member.key), exc_info=error)
            self._events.start_failed(member.key)
        self._apply(self._core.start_failed(now, member, error))

    def _adopt(self, now: float, member: Member, process: P) -> None:
        self._processes[member] = process
        self._spawn_seconds[member] = now - member.started_at
        self._events.started(member.key, now - member.started_at)
        self._apply(self._core.started(now, member, process.life))
        process.exited.add_done_callback(partial(self._on_exit, member))

    def _on_exit(self, member: Member, exited: asyncio.Future[Exit]) -> None:
        process = self._processes[member]
        if member.state is not ProcessState.STOPPING:
            cause = "unknown" if exited.cancelled() else exited.result().cause
            _log.warning("process_exited", process=process.id, state=str(member.state), cause=cause)
            self._events.exited()
        # A process that ended by itself has left its slot behind, and maybe children.
        self._stop(member)
        del self._processes[member], self._spawn_seconds[member]
        self._apply(self._core.exited(self._now(), member))

    async def _stop_one(self, process: P) -> None:
        try:
            async with asyncio.timeout(self._stop_timeout):
                await process.stop()
        except Exception:  # noqa: BLE001 - the process stays on the books and is stopped again
            _log.error("process_stop_failed", process=process.id, exc_info=True)

    async def _ping(self, member: Member) -> None:
        process = self._processes.get(member)
        if process is None:
            return
        try:
            async with asyncio.timeout(_PING_TIMEOUT):
                await process.ping()
        except Exception as error:  # noqa: BLE001 - whatever it is, the process did not answer
            _log.warning("process_ping_failed", process=process.id, error=repr(error))
            self._apply(self._core.pinged(self._now(), member, answered=False))
        else:
            self._apply(self._core.pinged(self._now(), member, answered=True))

    async def _weigh(self, members: tuple[Member, ...]) -> None:
        present = {
            member: self._processes[member] for member in members if member in self._processes
        }
        try:
            sizes = await self._measure(tuple(present.values()))
        except Exception:  # noqa: BLE001 - they stay counted as they were
            _log.error("weighing_failed", exc_info=True)
            return
        sized = dict(zip(present, sizes, strict=True))
        self._apply(self._core.weighed(self._now(), sized))

    async def _keep(self) -> None:
        """Let the core see time pass; everything urgent comes to it as an event of its own."""
        while True:
            await asyncio.sleep(_TICK)
            try:
                self._apply(self._core.tick(self._now()))
            except Exception:  # noqa: BLE001 - one bad round must not end the upkeep
                _log.error("pool_tick_failed", exc_info=True)

    def _now(self) -> float:
        return asyncio.get_running_loop().time()
