"""What to start and whom to stop for it: a pure reading of the books and the queue."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field

from warmline_service.errors import WarmlineError
from warmline_service.pool import _refusals
from warmline_service.pool._books import IDLE, Books, Member
from warmline_service.pool._demand import Demand
from warmline_service.pool._failures import StartFailures
from warmline_service.pool._queue import WaitQueue
from warmline_service.pool._room import Room
from warmline_service.pool._want import Waiter
from warmline_service.worker import ProcessState, SpawnKey


@dataclass(frozen=True)
class Birth:
    """A process to start; `waiter` is whom it is for, None for a spare."""

    key: SpawnKey
    waiter: Waiter | None


@dataclass
class Plan:
    """Starts and evictions that are due now, and waiters for whom no start will succeed."""

    births: list[Birth] = field(default_factory=list)
    evictions: list[Member] = field(default_factory=list)
    hopeless: list[tuple[Waiter, WarmlineError]] = field(default_factory=list)


@dataclass(frozen=True)
class Planner:
    """Plans supply: first for those who wait, then spares; never above the caps."""

    books: Books
    queue: WaitQueue
    room: Room
    failures: StartFailures
    demand: Mapping[SpawnKey, Demand]
    spawn_seconds: Mapping[bool, float]
    max_starting: int

    def plan(self, now: float) -> Plan:
        """What to do now."""
        plan = Plan()
        unmet, unclaimed = self._match(now)
        waiting = self._plan_waiters(plan, unmet, now)
        self._plan_spares(plan, waiting, unclaimed, now)
        return plan

    def _match(self, now: float) -> tuple[list[Waiter], list[Member]]:
        """Waiters for whom nothing is on its way, and starts that nobody waits for."""
        coming = list(self.books.all_in(ProcessState.STARTING))
        unmet = []
        for waiter in self.queue.in_order():
            claim = next((each for each in coming if self._serves(each, waiter, now)), None)
            if claim is None:
                unmet.append(waiter)
            else:
                coming.remove(claim)
        return unmet, coming

    def _serves(self, member: Member, waiter: Waiter, now: float) -> bool:
        left = self.spawn_seconds[member.key.prepared] - (now - member.started_at)
        soon = left <= self.spawn_seconds[waiter.want.cold_key.prepared]
        return soon and will_do(member, waiter)

    def _plan_waiters(self, plan: Plan, unmet: list[Waiter], now: float) -> int:
        """Plan starts for waiters in their order; returns for how many a place must be kept."""
        slots = self.max_starting - self.books.count(ProcessState.STARTING)
        kept = backed_off = 0
        for waiter in unmet:
            needed = len(plan.births) + kept + 1
            if self._is_hopeless(plan, waiter, now):
                continue
            if not self._may_start(plan, waiter.want.cold_key, now):
                backed_off += 1  # It must not keep those behind it from a place.
            elif needed <= slots and self.room.fits(needed):
                plan.births.append(Birth(waiter.want.cold_key, waiter))
            else:
                if needed <= slots:
                    self._make_room(plan, needed)
                kept += 1
        return kept + backed_off

    def _is_hopeless(self, plan: Plan, waiter: Waiter, now: float) -> bool:
        verdict = self.failures.hopeless(waiter.want.cold_key, now)
        if verdict is not None:
            plan.hopeless.append((waiter, _refusals.start_failed(*verdict)))
        return verdict is not None

    def _may_start(self, plan: Plan, key: SpawnKey, now: float) -> bool:
        starting = [each.key for each in self.books.all_in(ProcessState.STARTING)]
        starting += [each.key for each in plan.births]
        return self.failures.may_start(key, starting.count(key), now)

    def _make_room(self, plan: Plan, places: int) -> None:
        """Add the fewest evictions that make room, least recently used first; none if in vain.

        What is already stopping counts as room, so there are never more evictions than unmet needs.
        """
        victims = list(plan.evictions)
        for candidate in self.books.all_in(*IDLE):
            if self.room.fits_after(places, victims):
                break
            if candidate not in victims:
                victims.append(candidate)
        if self.room.fits_after(places, victims):
            plan.evictions = victims

    def _plan_spares(self, plan: Plan, kept: int, unclaimed: list[Member], now: float) -> None:
        slots = self.max_starting - self.books.count(ProcessState.STARTING) - len(plan.births)
        have = Counter(each.key for each in self.books.all_in(ProcessState.SPARE))
        have.update(each.key for each in unclaimed)
        for key, demand in self.demand.items():
            if demand.rests(now):
                continue
            for _ in range(demand.target(now) - have[key]):
                fits = self.room.fits(len(plan.births) + kept + 1)
                if slots <= 0 or not fits or not self._may_start(plan, key, now):
                    break
                plan.births.append(Birth(key, None))
                slots -= 1


def will_do(member: Member, waiter: Waiter) -> bool:
    """Whether a process that nobody has may be given to a waiter."""
    return member.key in waiter.want.keys and member.tenant in (None, waiter.want.tenant)
