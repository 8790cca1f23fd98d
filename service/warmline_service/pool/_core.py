"""The pool's decisions: an event comes in with the time, the things to do go out; nothing waits."""

from __future__ import annotations

import itertools
from functools import partial
from random import Random

from warmline_service.config import PoolSettings
from warmline_service.errors import WarmlineError
from warmline_service.pool import _refusals, _upkeep
from warmline_service.pool._actions import (
    Action,
    Grant,
    Launch,
    Ping,
    Refuse,
    Stop,
    Wake,
    Weigh,
    Why,
)
from warmline_service.pool._books import HELD, IDLE, Books, Member
from warmline_service.pool._budget import capacity
from warmline_service.pool._demand import Demand
from warmline_service.pool._failures import StartFailures
from warmline_service.pool._pace import Pace
from warmline_service.pool._plan import Birth, Planner, will_do
from warmline_service.pool._queue import WaitQueue
from warmline_service.pool._room import Room
from warmline_service.pool._want import SessionHasLease, Start, Waiter, Want
from warmline_service.worker import Life, ProcessState, SpawnKey

_JITTER = 0.1
_IN_USE = (ProcessState.RESERVED, ProcessState.BUSY)
_LEAVING = (ProcessState.STOPPING, ProcessState.GONE)


class Core:
    """The state of the pool and the rules that move it.

    Every method is one event at loop time `now` in seconds and returns the actions it calls for,
    in order. The caller performs them and reports what came of it as further events.
    """

    def __init__(
        self,
        settings: PoolSettings,
        *,
        spare_keys: tuple[SpawnKey, ...],
        memory_budget: int,
        rng: Random,
    ) -> None:
        most = capacity(settings, memory_budget)
        self.books = Books()
        self.queue = WaitQueue(settings.max_waiting, settings.max_waiting_per_tenant)
        self.room = Room(self.books, most, memory_budget, settings.process_estimate_bytes)
        self.demand = {key: Demand(settings.min_spares, settings.max_spares) for key in spare_keys}
        self.draining = False
        self._settings = settings
        self._rng = rng
        self._failures = StartFailures(settings.start_backoff)
        self._pace = Pace()
        self._planner = Planner(
            self.books,
            self.queue,
            self.room,
            self._failures,
            self.demand,
            self._pace.spawn_seconds,
            settings.max_starting,
        )
        self._generation = 0
        self._numbers = itertools.count(1)
        self._out: list[Action] = []

    # Callers.

    def want(self, now: float, waiter: Waiter) -> list[Action]:
        """A session wants a process. Raises SessionHasLease when it has or awaits one."""
        session = waiter.want.session_id
        own = self.books.of_session(session)
        if session in self.queue or (own is not None and not self._may_resume(own, waiter)):
            raise SessionHasLease(session)
        if now >= waiter.deadline:
            self._refuse_late(now, waiter)
        elif own is not None:
            self._grant(now, waiter, own, Start.HOT)
        elif self.draining:
            self._refuse(waiter, _refusals.draining())
        else:
            self._want_new(now, waiter)
        return self._taken()

    def cancel(self, now: float, waiter: Waiter) -> list[Action]:
        """A waiter has gone away without an answer."""
        if self.queue.remove(waiter):
            self._decide(now)
        return self._taken()

    def expire(self, now: float) -> list[Action]:
        """Some waiter's deadline has come."""
        self._decide(now)
        return self._taken()

    def bound(self, member: Member) -> None:
        """The session's inputs are in: from now on its process can be parked."""
        member.bound = True

    def turn_begun(self, now: float, member: Member) -> None:
        """The borrower starts a turn. Raises IllegalMove if it cannot."""
        member.bound = True
        self.books.move(member, ProcessState.BUSY, now)

    def release(self, now: float, member: Member, *, poisoned: bool) -> list[Action]:
        """The borrower is done; its process is parked under its session or stopped."""
        if member.state not in _LEAVING:
            self._pace.held(now - member.granted_at)
            why = self._reason_against_parking(now, member, poisoned=poisoned)
            if why is not None:
                self._stop(now, member, why)
            else:
                self.books.move(member, ProcessState.HOT, now)
            self._decide(now)
        return self._taken()

    def forget(self, now: float, session_id: str) -> list[Action]:
        """A session is over: its process ends, even in a turn."""
        own = self.books.of_session(session_id)
        if own is not None:
            self._stop(now, own, Why.FORGOTTEN)
        return self._taken()

    # Processes.

    def started(self, now: float, member: Member, life: Life) -> list[Action]:
        """A launch has given a process, whose life is the member's from now on."""
        leaving = member.state is ProcessState.STOPPING
        member.life = life
        if leaving:
            life.move(ProcessState.STOPPING)
            self._out.append(Stop(member, Why.UNWANTED))
            return self._taken()
        self._pace.spawned(member.key, now - member.started_at)
        self._failures.succeeded(member.key)
        jitter = self._settings.max_age * _JITTER * self._rng.random()
        member.expires_at = now + self._settings.max_age - jitter
        self._place(now, member)
        self._decide(now)
        return self._taken()

    def start_failed(self, now: float, member: Member, error: BaseException) -> list[Action]:
        """A launch has raised."""
        if member.state is not ProcessState.STOPPING:
            self._failures.failed(member.key, _refusals.as_start_failure(error), now)
        return self.exited(now, member)

    def exited(self, now: float, member: Member) -> list[Action]:
        """A process has ended, or a start that was to be cancelled; its place is free."""
        if member.state is not ProcessState.GONE:
            self.books.move(member, ProcessState.GONE, now)
            self._decide(now)
        return self._taken()

    def pinged(self, now: float, member: Member, *, answered: bool) -> list[Action]:
        """A ping has ended. One that failed in the middle of a turn is the borrower's to notice."""
        member.pinging = False
        member.pinged_at = now
        if not answered and member.state in IDLE:
            self._stop(now, member, Why.UNHEALTHY)
            self._decide(now)
        return self._taken()

    def weighed(self, now: float, sizes: dict[Member, int]) -> list[Action]:
        """Processes were measured, in bytes; 0 is one that had gone and says nothing."""
        for member, size in sizes.items():
            member.measured_at = now
            if size:
                self.books.measured(member, size)
        self._tidy(now)
        self._decide(now)
        return self._taken()

    # Upkeep.

    def tick(self, now: float) -> list[Action]:
        """Time has passed: retire, relieve, look after, refill."""
        self._tidy(now)
        for member in _upkeep.stuck(self.books, now):
            member.since = now
            self._out.append(Stop(member, Why.STUCK))
        for member in _upkeep.pings_due(self.books, self._settings, now):
            member.pinging = True
            self._out.append(Ping(member))
        if due := _upkeep.weighings_due(self.books, now):
            self._out.append(Weigh(due))
            for member in due:
                member.measured_at = now  # Asked for: not again before the answer.
        self._failures.prune(now)
        self._decide(now)
        return self._taken()

    def retire(self, now: float) -> list[Action]:
        """Everything that runs is of yesterday: idle now, in use after its turn."""
        self._generation += 1
        for member in self.books.all_in(ProcessState.STARTING, *IDLE):
            self._stop(now, member, Why.RETIRED)
        self._decide(now)
        return self._taken()

    def drain(self, now: float) -> list[Action]:
        """Nothing new from now on: no starts, no spares; sessions keep their own processes."""
        self._begin_drain(now)
        return self._taken()

    def close(self, now: float) -> list[Action]:
        """Everything ends, whatever it is doing."""
        self._begin_drain(now)
        for member in self.books:
            if member.state not in _LEAVING:
                self._stop(now, member, Why.DRAINED)
        return self._taken()

    # The rules.

    def _may_resume(self, own: Member, waiter: Waiter) -> bool:
        return own.state is ProcessState.HOT and own.tenant == waiter.want.tenant

    def _want_new(self, now: float, waiter: Waiter) -> None:
        kind = next((key for key in waiter.want.keys if key in self.demand), None)
        if kind is not None:
            self.demand[kind].arrived(now, self._pace.spawn_seconds[kind.prepared])
        most = waiter.want.share.processes
        if most is not None and not self._fits_share(now, waiter.want, most):
            self._refuse(waiter, _refusals.share_used(most, self._retry_after()))
            return
        limit = self.queue.exceeded(waiter.want)
        # A spare that is still here is of no use to anybody in the queue, so nobody is passed.
        if (spare := self._spare_for(waiter)) is not None:
            self._grant(now, waiter, spare, Start.WARM)
        elif limit is not None:
            self._refuse(waiter, _refusals.queue_full(limit, self._retry_after()))
        else:
            self.queue.add(waiter)
        self._decide(now)

    def _fits_share(self, now: float, want: Want, most: int) -> bool:
        """Whether its tenant may have one more process; of its own an idle one makes room for it."""
        own = [member for member in self.books.all_in(*HELD) if member.tenant == want.tenant]
        if len(own) + self.queue.of_tenant(want) < most:
            return True
        idle = next((member for member in own if member.state is ProcessState.HOT), None)
        if idle is not None:
            self._stop(now, idle, Why.EVICTED)
        return idle is not None

    def _decide(self, now: float) -> None:
        """After whatever happened: refuse whose time is up, then see to supply.

        Nobody in the queue can use a spare: each is offered to all of them when it comes up.
        """
        self._refuse_overdue(now)
        if self.draining:
            return
        plan = self._planner.plan(now)
        for waiter, error in plan.hopeless:
            self.queue.remove(waiter)
            self._refuse(waiter, error)
        for victim in plan.evictions:
            self._stop(now, victim, Why.EVICTED)
        for birth in plan.births:
            self._launch(now, birth)

    def _refuse_overdue(self, now: float) -> None:
        for waiter in self.queue.in_order():
            if now >= waiter.deadline:
                self.queue.remove(waiter)
                self._refuse_late(now, waiter)

    def _spare_for(self, waiter: Waiter) -> Member | None:
        spares = self.books.all_in(ProcessState.SPARE)
        fitting = [spare for spare in spares if will_do(spare, waiter)]
        return min(fitting, key=lambda spare: waiter.want.keys.index(spare.key), default=None)

    def _place(self, now: float, member: Member) -> None:
        """Give a process that is just up to the first who can use it, or keep it as a spare."""
        self._refuse_overdue(now)
        waiter = self.queue.first(partial(will_do, member))
        if waiter is not None:
            self._grant(now, waiter, member, Start.COLD if member.on_demand else Start.WARM)
        elif member.key in self.demand:
            self.books.move(member, ProcessState.SPARE, now)
        else:
            self._stop(now, member, Why.UNWANTED)

    def _grant(self, now: float, waiter: Waiter, member: Member, start: Start) -> None:
        self.queue.served(waiter)
        member.session = waiter.want.session_id
        member.tenant = waiter.want.tenant
        member.granted_at = now
        self.books.move(member, ProcessState.RESERVED, now)
        self._out.append(Grant(waiter, member, start, self._misses(waiter, member, start)))
        if start is Start.WARM and member.key in self.demand:
            at = self.demand[member.key].taken(now, self._settings.refill_delay)
            if at is not None:
                self._out.append(Wake(at))

    def _misses(self, waiter: Waiter, member: Member, start: Start) -> tuple[str, ...]:
        """What kept a waiter from its best kind, or from every kind of spare."""
        if start is Start.HOT:
            return ()
        if start is Start.WARM:
            return waiter.want.keys[0].misses(member.key)
        if any(key in self.demand for key in waiter.want.keys):
            return ("no_spare",)  # One of a kind that is kept would have done.
        nearest = min((member.key.misses(spare) for spare in self.demand), key=len, default=())
        return nearest or ("no_spare",)

    def _launch(self, now: float, birth: Birth) -> None:
        owner = birth.waiter.want.tenant if birth.waiter is not None else None
        if birth.key in self.demand:
            owner = None  # Any other kind carries a tenant's inputs, so it is that tenant's alone.
        member = Member(
            number=next(self._numbers),
            key=birth.key,
            generation=self._generation,
            bytes=self.room.estimate,
            started_at=now,
            on_demand=birth.waiter is not None,
            tenant=owner,
        )
        self.books.add(member)
        self._out.append(Launch(member))

    def _begin_drain(self, now: float) -> None:
        self.draining = True
        for waiter in tuple(self.queue.in_order()):
            self.queue.remove(waiter)
            self._refuse(waiter, _refusals.draining())
        for member in self.books.all_in(ProcessState.STARTING, ProcessState.SPARE):
            self._stop(now, member, Why.DRAINED)

    def _reason_against_parking(self, now: float, member: Member, *, poisoned: bool) -> Why | None:
        if poisoned:
            return Why.POISONED
        if self.draining:
            return Why.DRAINED
        if not member.bound:
            return Why.UNBOUND
        return _upkeep.reason_to_stop(member, self._settings, self._generation, now)

    def _tidy(self, now: float) -> None:
        """Stop what is idle and has to go."""
        for member in self.books.all_in(*IDLE):
            why = _upkeep.reason_to_stop(member, self._settings, self._generation, now)
            if why is None and _upkeep.is_forgotten(member, self._settings, now):
                why = Why.IDLE
            if why is not None:
                self._stop(now, member, why)
        self._stop_surplus(now)
        for member in self.books.all_in(*IDLE):
            if not self.room.overdrawn():
                break
            self._stop(now, member, Why.PRESSURE)

    def _stop_surplus(self, now: float) -> None:
        for key, demand in self.demand.items():
            spares = [each for each in self.books.all_in(ProcessState.SPARE) if each.key == key]
            for member in spares[: max(0, len(spares) - demand.target(now))]:
                if now >= member.since + self._settings.idle_ttl:
                    self._stop(now, member, Why.SURPLUS)

    def _stop(self, now: float, member: Member, why: Why) -> None:
        self.books.move(member, ProcessState.STOPPING, now)
        self._out.append(Stop(member, why))

    def _refuse(self, waiter: Waiter, error: WarmlineError) -> None:
        self._out.append(Refuse(waiter, error))

    def _refuse_late(self, now: float, waiter: Waiter) -> None:
        self._refuse(waiter, _refusals.exhausted(now - waiter.since, self._retry_after()))

    def _retry_after(self) -> float:
        in_use = sum(map(self.books.count, _IN_USE))
        return self._pace.retry_after(in_use, len(self.queue))

    def _taken(self) -> list[Action]:
        out, self._out = self._out, []
        return out
