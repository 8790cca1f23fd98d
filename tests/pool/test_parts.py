"""The pool's small rules, one by one."""

from pathlib import Path

import pytest
from warmline_service.config import MIB, PoolSettings
from warmline_service.errors import Reason, WarmlineError
from warmline_service.pool import capacity, default_memory_budget
from warmline_service.pool._demand import HALF_LIFE, Demand
from warmline_service.pool._failures import StartFailures
from warmline_service.pool._pace import Pace
from warmline_service.pool._queue import WaitQueue
from warmline_service.pool._want import Share, Waiter, Want
from warmline_service.worker import SpawnKey


def test_spares_follow_demand_up_and_back_down() -> None:
    """The target is the decaying maximum of arrivals within one start, between its bounds."""
    demand = Demand(1, 4)
    assert demand.target(0.0) == 1
    for _ in range(9):
        demand.arrived(10.0, spawn_seconds=0.3)
    assert demand.target(10.0) == 4
    assert demand.target(10.0 + HALF_LIFE) == 2
    assert demand.target(10.0 + 10 * HALF_LIFE) == 1


def test_spread_arrivals_need_no_more_spares() -> None:
    """Arrivals further apart than a start takes are served by one spare."""
    demand = Demand(0, 4)
    for second in range(20):
        demand.arrived(float(5 * second), spawn_seconds=0.3)
    assert demand.target(95.0) == 1


def test_who_took_a_spare_has_the_machine_for_a_moment() -> None:
    """Then the spare is replaced; whoever comes meanwhile puts that off no further."""
    demand = Demand(1, 4)
    assert not demand.rests(10.0)
    assert demand.taken(10.0, 0.3) == 10.3
    assert demand.rests(10.29)
    assert demand.taken(10.29, 0.3) is None
    assert not demand.rests(10.3)


def test_where_more_come_spares_are_replaced_at_once() -> None:
    """As they are where nobody wants the moment."""
    demand = Demand(1, 4)
    assert demand.taken(10.0, 0.0) is None
    assert demand.taken(10.0, 0.3) == 10.3
    for _ in range(2):
        demand.arrived(10.1, spawn_seconds=0.3)
    assert not demand.rests(10.1)
    assert demand.taken(10.5, 0.3) is None


def test_back_off_doubles_up_to_a_minute() -> None:
    """Each failure in a row doubles the wait, and a success ends it."""
    failures, key = StartFailures(1.0), SpawnKey()
    cause = WarmlineError(Reason.CLI_CRASHED, "No.")
    for wait in (1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 60.0, 60.0):
        failures.failed(key, cause, 0.0)
        assert not failures.may_start(key, 0, wait - 0.1)
        assert failures.may_start(key, 0, wait)
    failures.succeeded(key)
    assert failures.may_start(key, 5, 0.0)


def test_old_failures_are_dropped() -> None:
    """Keys come from callers, so their failures are not kept for ever."""
    failures, key = StartFailures(1.0), SpawnKey()
    failures.failed(key, WarmlineError(Reason.CLI_CRASHED, "No."), 0.0)
    failures.prune(30.0)
    assert not failures.may_start(key, 1, 30.0)
    failures.prune(100.0)
    assert failures.may_start(key, 1, 100.0)


def test_advice_to_retry_follows_the_pace_and_has_bounds() -> None:
    """A turn's length shared by all in use, from one second to a minute."""
    pace = Pace()
    assert pace.retry_after(10, 0) == 1.0
    for _ in range(50):
        pace.held(30.0)
    assert pace.retry_after(10, 1) == pytest.approx(6.0, rel=0.01)
    assert pace.retry_after(1, 100) == 60.0


@pytest.mark.parametrize(("text", "limited"), [("1000000", True), ("max", False), (None, False)])
def test_the_budget_respects_the_container(tmp_path: Path, text: str | None, limited: bool) -> None:
    """60 % of what is available, or of the cgroup's limit where that is lower."""
    path = tmp_path / "memory.max"
    if text is not None:
        path.write_text(f"{text}\n")
    assert (default_memory_budget([path]) == 600_000) is limited
    assert default_memory_budget([path]) > 0


def test_capacity_comes_from_the_settings_or_the_budget() -> None:
    """A set number holds; otherwise as many as the budget bears, at least one."""
    assert capacity(PoolSettings(max_processes=7), 0) == 7
    assert capacity(PoolSettings(), 1100 * MIB) == 4
    assert capacity(PoolSettings(), 1) == 1


def waiter(tenant: str, session: str, group: str = "", waiting: int | None = None) -> Waiter:
    """One that waits, in the line of a group where there is one."""
    key = SpawnKey(model="haiku")
    return Waiter(Want(tenant, session, (key,), Share(waiting=waiting), group), 0.0, 1.0)


def test_a_group_has_one_turn_among_all_who_wait() -> None:
    """However many its tenants are; within it the first that came is served first."""
    queue = WaitQueue(100, 100)
    members = [waiter(f"m{number}", f"m{number}", "group") for number in range(3)]
    other, alone = waiter("other", "o1"), waiter("other", "o2")
    for each in (*members, other, alone):
        queue.add(each)
    assert list(queue.in_order()) == [members[0], other, members[1], alone, members[2]]
    served = []
    while (first := queue.first(lambda _: True)) is not None:
        served.append(first)
        queue.served(first)
    assert served == [members[0], other, members[1], alone, members[2]]
    assert len(queue) == 0


def test_a_line_is_bounded_and_so_is_a_tenant_in_it() -> None:
    """The group as one tenant would be; a tenant's own bound counts his alone."""
    queue = WaitQueue(100, 3)
    queue.add(waiter("m1", "a", "group"))
    assert queue.exceeded(waiter("m1", "b", "group", waiting=1).want) == 1
    assert queue.exceeded(waiter("m2", "b", "group", waiting=1).want) is None
    queue.add(waiter("m2", "b", "group"))
    queue.add(waiter("m3", "c", "group"))
    assert queue.exceeded(waiter("m4", "d", "group").want) == 3
    assert queue.exceeded(waiter("m4", "d").want) is None
