"""A second, simpler account of the pool, kept only from what goes in and out, to check the core."""

import math
from collections import Counter
from dataclasses import dataclass, field
from random import Random

import pytest
from warmline_service.config import MIB, PoolSettings
from warmline_service.errors import Reason, WarmlineError
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
from warmline_service.pool._books import Member
from warmline_service.pool._core import Core
from warmline_service.pool._want import SessionHasLease, Start, Waiter, Want
from warmline_service.worker import Life, ProcessState, SpawnKey, SystemPrompt

FRESH = SpawnKey()
PRIMED = SpawnKey(primed=True)
ODD = SpawnKey(system_prompt=SystemPrompt("replace", "be odd"))
KINDS: tuple[tuple[SpawnKey, ...], ...] = ((PRIMED, FRESH), (FRESH,), (ODD,))
ESTIMATE = 100 * MIB
IDLE = {"spare", "hot"}
LENT = {"reserved", "busy"}


@dataclass(eq=False)
class Seen:
    """One process as the model knows it from actions and events alone."""

    member: Member
    state: str = "starting"
    size: int = ESTIMATE
    session: str | None = None
    owner: str | None = None
    waiter: Waiter | None = None
    bound: bool = False
    born: float = 0.0
    idle_since: float = 0.0
    doomed: bool = False
    up: bool = False


@dataclass
class Row:
    """Failures in a row of a key."""

    count: int = 0
    at: float = -math.inf


@dataclass
class PoolModel:
    """Feeds a core and checks every action that comes out."""

    settings: PoolSettings
    budget: int
    now: float = 0.0
    seen: dict[Member, Seen] = field(default_factory=dict)
    pending: dict[Waiter, Counter[str]] = field(default_factory=dict)
    answers: Counter[Waiter] = field(default_factory=Counter)
    owners: dict[str, str] = field(default_factory=dict)
    rows: dict[SpawnKey, Row] = field(default_factory=dict)
    taken: dict[SpawnKey, float] = field(default_factory=dict)
    wakes: list[float] = field(default_factory=list)
    pings: set[Member] = field(default_factory=set)
    generation: int = 0
    draining: bool = False
    closed: bool = False

    def __post_init__(self) -> None:
        self.core = Core(
            self.settings,
            spare_keys=(PRIMED, FRESH),
            memory_budget=self.budget,
            rng=Random(7),  # noqa: S311 - the same run each time
        )

    # Reading.

    def those(self, *states: str) -> list[Seen]:
        return [each for each in self.seen.values() if each.state in states]

    def live(self) -> list[Seen]:
        return [each for each in self.seen.values() if each.state != "gone"]

    def held(self) -> list[Seen]:
        return [each for each in self.seen.values() if each.waiter is not None]

    def patience_for(self, key: SpawnKey) -> float:
        return self.back_off(self.rows[key]) if key in self.rows else 0.5

    def of_session(self, session: str) -> Seen | None:
        own = [each for each in self.those(*LENT, "hot") if each.session == session]
        assert len(own) <= 1, "a session has two processes"
        return own[0] if own else None

    def committed(self, *without: str) -> int:
        return sum(each.size for each in self.live() if each.state not in without)

    def back_off(self, row: Row) -> float:
        return min(60.0, self.settings.start_backoff * 2.0 ** min(row.count - 1, 16))

    # Events.

    def want(self, tenant: str, session: str, keys: tuple[SpawnKey, ...], patience: float) -> None:
        waiter = Waiter(Want(tenant, session, keys), self.now, self.now + patience)
        self.pending[waiter] = Counter()
        self.perform(self.core.want(self.now, waiter))

    def want_again(self, tenant: str, session: str, keys: tuple[SpawnKey, ...]) -> None:
        with pytest.raises(SessionHasLease):
            self.core.want(self.now, Waiter(Want(tenant, session, keys), self.now, math.inf))

    def cancel(self, waiter: Waiter) -> None:
        del self.pending[waiter]
        self.answers[waiter] += 1
        self.perform(self.core.cancel(self.now, waiter))

    def started(self, seen: Seen) -> None:
        stopping = seen.state == "stopping"
        seen.born = seen.idle_since = self.now
        seen.up = True
        if not stopping:
            seen.state = "spare"
            self.rows.pop(seen.member.key, None)
        self.perform(self.core.started(self.now, seen.member, Life()), arrival=seen)
        if seen.state == "spare":
            assert seen.member.key in (PRIMED, FRESH), "a tenant's own kind was kept as a spare"

    def start_failed(self, seen: Seen) -> None:
        if seen.state == "starting":
            row = self.rows.setdefault(seen.member.key, Row())
            row.count, row.at = row.count + 1, self.now
        seen.state = "gone"
        error = WarmlineError(Reason.CLI_CRASHED, "It died.")
        self.perform(self.core.start_failed(self.now, seen.member, error))

    def exited(self, seen: Seen) -> None:
        seen.state = "gone"
        self.perform(self.core.exited(self.now, seen.member))

    def turn_begun(self, seen: Seen) -> None:
        self.core.turn_begun(self.now, seen.member)
        seen.state, seen.bound = "busy", True

    def bind(self, seen: Seen) -> None:
        self.core.bound(seen.member)
        seen.bound = True

    def release(self, seen: Seen, *, poisoned: bool) -> None:
        seen.waiter = None
        if seen.state in LENT:
            seen.state = "returned"
        keep = seen.bound and not poisoned and not self.draining and not seen.doomed
        self.perform(self.core.release(self.now, seen.member, poisoned=poisoned))
        if seen.state == "returned":
            assert keep, "an unfit process was parked"
            seen.state, seen.idle_since = "hot", self.now

    def forget(self, session: str) -> None:
        self.perform(self.core.forget(self.now, session))
        assert self.of_session(session) is None, "a forgotten session keeps its process"

    def pinged(self, seen: Seen, *, answered: bool) -> None:
        self.pings.discard(seen.member)
        idle = seen.state in IDLE
        self.perform(self.core.pinged(self.now, seen.member, answered=answered))
        assert answered or not idle or seen.state == "stopping", "a dead process was kept"

    def weigh(self, sizes: dict[Seen, int]) -> None:
        for seen, size in sizes.items():
            seen.size = size
        members = {seen.member: size for seen, size in sizes.items()}
        self.perform(self.core.weighed(self.now, members))
        self.check_pressure()

    def tick(self, seconds: float) -> None:
        self.now += seconds
        for key, row in [*self.rows.items()]:
            if self.now >= row.at + self.back_off(row) + 60.0:
                del self.rows[key]  # So long past that it does not count any more.
        self.perform(self.core.tick(self.now))
        self.check_ages()
        self.check_pressure()

    def pause(self, seconds: float) -> None:
        """Time passes, and nobody says so but whoever asked for it."""
        self.now += seconds
        due = [at for at in self.wakes if at <= self.now]
        self.wakes = [at for at in self.wakes if at > self.now]
        if due:
            self.perform(self.core.tick(self.now))

    def retire(self) -> None:
        self.generation += 1
        for seen in self.live():
            seen.doomed = True
        self.perform(self.core.retire(self.now))
        assert not [each for each in self.those(*IDLE, "starting") if each.doomed]

    def drain(self) -> None:
        self.draining = True
        self.perform(self.core.drain(self.now))
        assert not self.pending, "a waiter was left behind by the drain"
        assert not self.those("spare", "starting"), "kept for nobody in the drain"

    def close(self) -> None:
        self.closed = self.draining = True
        self.perform(self.core.close(self.now))
        assert not self.pending, "a waiter was left behind by the close"
        assert {each.state for each in self.live()} <= {"stopping"}, "the close left one running"

    # Actions.

    def perform(self, actions: list[Action], arrival: Seen | None = None) -> None:
        stops = [action for action in actions if isinstance(action, Stop)]
        for action in actions:
            match action:
                case Grant():
                    self.on_grant(action, arrival)
                case Refuse(waiter, error):
                    self.on_refuse(waiter, error)
                case Launch(member):
                    self.on_launch(member)
                case Stop():
                    self.on_stop(action)
                case Ping(member):
                    assert self.seen[member].state in IDLE
                    assert member not in self.pings
                    self.pings.add(member)
                case Weigh(members):
                    assert all(self.seen[each].state in IDLE | LENT for each in members)
                case Wake(at):
                    assert at == self.now + self.settings.refill_delay
                    self.wakes.append(at)
        self.check_evictions(stops)

    def on_grant(self, grant: Grant, arrival: Seen | None) -> None:
        seen, waiter, want = self.seen[grant.member], grant.waiter, grant.waiter.want
        assert waiter in self.pending, "a waiter was answered twice"
        assert seen.state in IDLE, f"a {seen.state} process was lent"
        assert seen.waiter is None, "lent twice"
        assert self.now < waiter.deadline, "granted at or after the deadline"
        assert want.session_id not in [each.session for each in self.those(*LENT)]
        if grant.start is Start.HOT:
            assert seen.session == want.session_id, "another session's process"
        else:
            self.check_new_grant(seen, waiter)
            assert (grant.start is Start.COLD) == (seen is arrival and grant.member.on_demand)
        if grant.start is Start.WARM:
            self.taken[grant.member.key] = self.now
        assert self.owners.setdefault(want.session_id, want.tenant) == want.tenant
        del self.pending[waiter]
        self.answers[waiter] += 1
        seen.state, seen.session, seen.waiter = "reserved", want.session_id, waiter

    def check_new_grant(self, seen: Seen, waiter: Waiter) -> None:
        assert not self.draining, "a new session was served in the drain"
        assert seen.state == "spare", "not blank"
        assert seen.session is None, "of another session"
        assert self.of_session(waiter.want.session_id) is None, "the session has one already"
        assert self.acceptable(seen, waiter), "a kind that will not do, or another tenant's"
        for other in self.pending:
            if other is waiter:
                continue
            if other.want.tenant == waiter.want.tenant:
                ahead = [*self.pending].index(other) < [*self.pending].index(waiter)
                assert not (ahead and self.acceptable(seen, other)), "not FIFO within the tenant"
                self.pending[other].clear()
            elif self.acceptable(seen, other):
                self.pending[other][waiter.want.tenant] += 1
                assert max(self.pending[other].values()) <= 1, "a tenant was passed twice"

    def acceptable(self, seen: Seen, waiter: Waiter) -> bool:
        return seen.member.key in waiter.want.keys and seen.owner in (None, waiter.want.tenant)

    def on_refuse(self, waiter: Waiter, error: WarmlineError) -> None:
        assert waiter in self.pending, "a waiter was answered twice"
        del self.pending[waiter]
        self.answers[waiter] += 1
        match error.reason:
            case Reason.POOL_EXHAUSTED:
                assert self.now >= waiter.deadline, "refused before its deadline"
                assert error.retry_after
            case Reason.QUEUE_FULL:
                mine = [each for each in self.pending if each.want.tenant == waiter.want.tenant]
                full = len(self.pending) >= self.settings.max_waiting
                assert full or len(mine) >= self.settings.max_waiting_per_tenant
                assert error.retry_after
            case Reason.DRAINING:
                assert self.draining
            case reason:
                assert reason is Reason.CLI_CRASHED
                assert self.rows[waiter.want.cold_key].count >= 3, "given up too early"

    def on_launch(self, member: Member) -> None:
        assert not self.draining, "a start in the drain"
        row = self.rows.get(member.key)
        if row is not None:
            assert self.now >= row.at + self.back_off(row), "started within its back-off"
            assert member.key not in [each.member.key for each in self.those("starting")]
        common = member.key in (PRIMED, FRESH)
        assert common == (member.tenant is None), "a tenant's kind without its tenant"
        if not member.on_demand:
            later = [
                waiter
                for waiter in self.pending
                if self.backs_off(waiter) and not self.coming_for(waiter, "starting")
            ]
            places = self.core.room.most - len(self.live())
            assert places > len(later), "a spare took the place of one who waits"
        self.seen[member] = Seen(member, owner=member.tenant)
        assert len(self.those("starting")) <= self.settings.max_starting, "too many starts"
        assert len(self.live()) <= self.core.room.most, "too many processes"
        assert self.committed() <= max(self.budget, ESTIMATE), "too much memory"

    def on_stop(self, stop: Stop) -> None:
        seen = self.seen[stop.member]
        if stop.why is Why.STUCK or seen.state == "stopping":
            assert seen.state == "stopping"
            return
        assert seen.state != "gone"
        if seen.state in LENT:
            assert stop.why is Why.FORGOTTEN or self.closed, f"{stop.why} stopped one in use"
        if stop.why is Why.AGED:
            assert self.now - seen.born >= 0.9 * self.settings.max_age, "stopped for age too early"
        if stop.why is Why.IDLE:
            assert self.now - seen.idle_since >= self.settings.idle_ttl
        if stop.why is Why.UNBOUND:
            assert not seen.bound
        seen.state = "stopping"

    # Rules that hold after events.

    def check_evictions(self, stops: list[Stop]) -> None:
        """No eviction beyond what waiters need, and none of them for nothing."""
        evicted = [self.seen[stop.member] for stop in stops if stop.why is Why.EVICTED]
        if evicted:
            assert len(evicted) <= self.settings.max_starting or self.tight_memory()
            assert self.pending, "evicted for nobody"
            stopping = len(self.those("stopping"))
            assert stopping <= len(self.pending) or self.tight_memory(), "evicted too many"

    def has_room(self) -> bool:
        fits = self.committed() + ESTIMATE <= max(self.budget, ESTIMATE)
        return fits and len(self.live()) < self.core.room.most

    def coming_for(self, waiter: Waiter, state: str) -> bool:
        return any(self.acceptable(each, waiter) for each in self.those(state))

    def backs_off(self, waiter: Waiter) -> bool:
        row = self.rows.get(waiter.want.cold_key)
        return row is not None and self.now < row.at + self.back_off(row)

    def tight_memory(self) -> bool:
        return self.committed() + ESTIMATE > self.budget

    def check_ages(self) -> None:
        for seen in self.those(*IDLE):
            assert self.now - seen.born < self.settings.max_age, "an old one was kept"
            idle = self.now - seen.idle_since
            assert seen.state != "hot" or idle < self.settings.idle_ttl, "an idle one was kept"
            assert seen.size <= self.settings.process_limit_bytes, "a swollen one was kept"

    def check_pressure(self) -> None:
        kept = [each for each in self.live() if each.state != "stopping"]
        over = self.committed("stopping") > max(self.budget, ESTIMATE)
        assert not (over and len(kept) > 1 and self.those(*IDLE)), "no relief under pressure"

    def check_books(self) -> None:
        """The core's books and the model's account agree on every process."""
        filed = {member: member.state for member in self.core.books}
        assert filed == {each.member: ProcessState(each.state) for each in self.live()}
        for state in ProcessState:
            for member in self.core.books.all_in(state):
                assert member.state is state, "filed in the wrong place"
        assert self.core.books.committed == self.committed()
        assert len(self.core.queue) == len(self.pending) <= self.settings.max_waiting
        tenants = Counter(waiter.want.tenant for waiter in self.pending)
        assert max(tenants.values(), default=0) <= self.settings.max_waiting_per_tenant

    def check_nobody_forgotten(self) -> None:
        """Whoever waits has a reason to: something is on its way, backs off, or all is in use."""
        for waiter in self.pending:
            row = self.rows.get(waiter.want.cold_key)
            on_its_way = self.those("starting", "stopping")
            full = len(self.those(*LENT)) >= self.core.room.most
            heavy = self.committed("stopping", *IDLE) + ESTIMATE > max(self.budget, ESTIMATE)
            assert row or on_its_way or full or heavy, f"{waiter} waits for nothing"
            assert not self.coming_for(waiter, "spare"), "a spare lies idle"
            hopeless = row is not None and row.count >= 3 and self.backs_off(waiter)
            assert not hopeless or self.coming_for(waiter, "starting"), "not told of the failures"
        starting = len(self.those("starting"))
        if self.has_room() and not self.rows and starting < self.settings.max_starting:
            assert len(self.pending) <= starting, "a start was spared"

    def check_spares(self) -> None:
        """With nobody waiting and room for it, every kind has its least number of spares."""
        if self.pending or self.draining or not self.has_room():
            return
        if len(self.those("starting")) >= self.settings.max_starting:
            return
        for key in (PRIMED, FRESH):
            if self.now < self.taken.get(key, -math.inf) + self.settings.refill_delay:
                continue
            have = [each for each in self.those("spare", "starting") if each.member.key == key]
            assert key in self.rows or len(have) >= self.settings.min_spares, "no spare was made"
            assert len(have) <= self.settings.max_spares + len(self.answers)
