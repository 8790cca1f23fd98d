"""The pool's shell: what callers get, and that nothing is lost whatever happens to them."""

import asyncio
from dataclasses import replace

import pytest
from pool.fake_process import FRESH, Factory, FakeProcess, pool_of, soon, want
from warmline_service.errors import Reason, WarmlineError
from warmline_service.pool import (
    Lease,
    LeaseExpired,
    Pool,
    SessionHasLease,
    Share,
    SilentEvents,
    Start,
)
from warmline_service.worker import ProcessState, SpawnKey, SystemPrompt

pytestmark = pytest.mark.virtual_time
ODD = SpawnKey(system_prompt=SystemPrompt("append", "be odd"))


async def one_turn(pool: Pool[FakeProcess], session: str, tenant: str = "ann") -> Start:
    """Acquire, run a turn, give back."""
    lease = await pool.acquire(want(session, tenant), soon())
    lease.begin_turn()
    lease.release()
    return lease.start


async def refusal(pool: Pool[FakeProcess], session: str, seconds: float = 5.0) -> WarmlineError:
    """The error that a session gets."""
    with pytest.raises(WarmlineError) as caught:
        await pool.acquire(want(session), soon(seconds))
    return caught.value


async def test_a_spare_is_warm_and_the_second_turn_is_hot() -> None:
    """A session gets a spare first and from then on its own process."""
    factory = Factory()
    async with pool_of(factory, min_spares=1) as pool:
        await asyncio.sleep(1)
        assert await one_turn(pool, "a") is Start.WARM
        assert await one_turn(pool, "a") is Start.HOT


async def test_a_spare_is_replaced_when_its_taker_has_had_the_machine_for_a_moment() -> None:
    """Not before, not only with the next look around, and not at all once the pool is closed."""
    factory = Factory()
    async with pool_of(factory, min_spares=1, refill_delay=0.3) as pool:
        await asyncio.sleep(1)
        lease = await pool.acquire(want("a"), soon())
        lease.begin_turn()
        await asyncio.sleep(0.29)
        assert pool.stats().processes[ProcessState.STARTING] == 0
        await asyncio.sleep(0.02)
        assert pool.stats().processes[ProcessState.STARTING] == 1
        await asyncio.sleep(1)
        other = await pool.acquire(want("b"), soon())
        lease.release()
        other.release()
    await asyncio.sleep(1)
    assert len(factory.made) == 2


async def test_an_empty_pool_starts_cold_and_says_what_it_took() -> None:
    """A cold lease tells its wait, its start, and the inputs that no spare has."""
    factory = Factory()
    async with pool_of(factory) as pool:
        lease = await pool.acquire(want("a", "ann", ODD), soon())
        assert (lease.start, lease.misses) == (Start.COLD, ("system_prompt",))
        assert lease.queue_seconds == pytest.approx(0.2)
        assert lease.spawn_seconds == pytest.approx(0.2)
        lease.release()


async def test_a_start_for_want_of_a_spare_says_so() -> None:
    """A spare would have done, whatever more its cold start is given; there was none."""
    async with pool_of(Factory()) as pool:
        lease = await pool.acquire(want("a", "ann", FRESH, ODD), soon())
        assert (lease.start, lease.misses) == (Start.COLD, ("no_spare",))
        lease.release()


async def test_a_lease_dies_on_release() -> None:
    """Late use of a lease raises, the second release too."""
    async with pool_of(Factory()) as pool:
        lease = await pool.acquire(want("a"), soon())
        lease.release()
        with pytest.raises(LeaseExpired):
            _ = lease.process
        with pytest.raises(LeaseExpired):
            lease.release()


async def test_a_second_lease_for_a_session_is_a_bug_of_the_caller() -> None:
    """A session never has two processes."""
    async with pool_of(Factory()) as pool:
        lease = await pool.acquire(want("a"), soon())
        with pytest.raises(SessionHasLease):
            await pool.acquire(want("a"), soon())
        lease.release()


@pytest.mark.parametrize(("bound", "kept"), [(True, 1), (False, 0)])
async def test_only_a_bound_process_is_kept_without_a_turn(bound: bool, kept: int) -> None:
    """A process that may be half bound is never parked."""
    async with pool_of(Factory()) as pool:
        lease = await pool.acquire(want("a"), soon())
        if bound:
            lease.mark_bound()
        lease.release()
        assert pool.stats().processes[ProcessState.HOT] == kept


async def test_a_poisoned_process_is_stopped() -> None:
    """After a cut turn a process is never used again."""
    factory = Factory()
    async with pool_of(factory) as pool:
        lease = await pool.acquire(want("a"), soon())
        lease.begin_turn()
        lease.release(poisoned=True)
        await asyncio.sleep(1)
        assert factory.made[0].stops == 1
        assert await one_turn(pool, "a") is Start.COLD


async def test_a_release_in_another_task_serves_a_waiter() -> None:
    """Who waits at the cap gets the place of the longest unused session."""
    factory = Factory()
    async with pool_of(factory, max_processes=1) as pool:
        lease = await pool.acquire(want("a"), soon())
        lease.mark_bound()
        asyncio.get_running_loop().call_later(1.0, lease.release)
        other = await pool.acquire(want("b", "bob"), soon())
        assert other.queue_seconds == pytest.approx(1.0 + 0.05 + 0.2)
        other.release()


async def test_a_wait_ends_at_the_deadline() -> None:
    """POOL_EXHAUSTED comes at the deadline and says when to try again."""
    async with pool_of(Factory(), max_processes=1) as pool:
        lease = await pool.acquire(want("a"), soon())
        begun = asyncio.get_running_loop().time()
        error = await refusal(pool, "b", 3.0)
        assert error.reason is Reason.POOL_EXHAUSTED
        assert error.retry_after is not None
        assert asyncio.get_running_loop().time() - begun == pytest.approx(3.0)
        lease.release()


async def test_the_settings_bound_the_wait() -> None:
    """A call with a distant deadline waits no longer than acquire_timeout."""
    async with pool_of(Factory(), max_processes=1, acquire_timeout=2.0) as pool:
        lease = await pool.acquire(want("a"), soon())
        begun = asyncio.get_running_loop().time()
        await refusal(pool, "b", 1000.0)
        assert asyncio.get_running_loop().time() - begun == pytest.approx(2.0)
        lease.release()


async def test_a_full_queue_refuses_at_once() -> None:
    """QUEUE_FULL names the limit and when to try again."""
    async with pool_of(Factory(), max_waiting=0) as pool:
        error = await refusal(pool, "a")
        assert error.reason is Reason.QUEUE_FULL
        assert error.metadata == {"limit": "0"}
        assert error.retry_after is not None


async def test_three_failed_starts_fail_the_waiters_with_the_cause() -> None:
    """After three failures in a row waiters learn why, and later ones at once."""
    factory = Factory()
    factory.error = WarmlineError(Reason.CLI_CRASHED, "It said: no.")
    async with pool_of(factory) as pool:
        error = await refusal(pool, "a", 20.0)
        assert (error.message, factory.tried) == ("It said: no.", 3)
        assert (await refusal(pool, "b")).retry_after == pytest.approx(4.0, abs=0.1)
        assert factory.tried == 3


async def test_starts_work_again_after_the_back_off() -> None:
    """When the cause is gone one start is tried, and serves."""
    factory = Factory()
    factory.error = OSError("no room")
    async with pool_of(factory) as pool:
        assert (await refusal(pool, "a", 20.0)).reason is Reason.CLI_CRASHED
        factory.error = None
        await asyncio.sleep(5)
        assert await one_turn(pool, "a") is Start.COLD


async def test_a_launch_that_hangs_is_given_up_by_the_close() -> None:
    """A start that never ends keeps nobody from closing."""
    factory = Factory()
    factory.seconds = 1e6
    async with pool_of(factory) as pool:
        assert (await refusal(pool, "a")).reason is Reason.POOL_EXHAUSTED
        assert pool.stats().processes[ProcessState.STARTING] == 1
        closing = asyncio.get_running_loop().time()
    assert asyncio.get_running_loop().time() - closing < 1.0, "the close waited for the launch"
    assert sum(pool.stats().processes.values()) == 0


async def cancelled_after(steps: int, factory: Factory, pool: Pool[FakeProcess]) -> bool:
    """Cancel an acquire after so many turns of the loop; whether it had ended before."""
    task: asyncio.Task[Lease[FakeProcess]] = asyncio.create_task(pool.acquire(want("a"), soon()))
    for _ in range(steps):
        await asyncio.sleep(0 if factory.made or steps < 4 else 0.05)
    if task.done():
        (await task).release()
        return True
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    return False


async def test_a_cancelled_acquire_loses_no_process() -> None:
    """Wherever an acquire is cut, its process serves somebody else or is stopped."""
    for steps in range(200):
        factory = Factory()
        async with pool_of(factory, max_processes=1) as pool:
            done = await cancelled_after(steps, factory, pool)
            assert pool.stats().waiting == 0
            assert await one_turn(pool, "b", "bob") in (Start.COLD, Start.WARM)
        if done:
            return
    pytest.fail("the acquire never ended")


class CancelAtGrant(SilentEvents):
    """Cancels a waiting caller just before its grant, or after it and before the caller knows."""

    def __init__(self, late: bool) -> None:
        self.late = late
        self.caller: asyncio.Task[Lease[FakeProcess]] | None = None

    def started(self, key: SpawnKey, seconds: float) -> None:
        """The grant follows at once."""
        if self.caller is not None and not self.late:
            self.caller.cancel()

    def granted(self, start: Start, misses: tuple[str, ...], queue_seconds: float) -> None:
        """The caller is told at once, and wakes up after what is already due."""
        if self.caller is not None and self.late:
            asyncio.get_running_loop().call_soon(self.caller.cancel)


@pytest.mark.parametrize("late", [False, True])
async def test_a_grant_that_crosses_a_cancellation_goes_back(late: bool) -> None:
    """Cancelled in the same turn of the loop as granted, a caller holds nothing."""
    factory, events = Factory(), CancelAtGrant(late)
    async with pool_of(factory, max_processes=1, events=events) as pool:
        events.caller = asyncio.create_task(pool.acquire(want("a"), soon()))
        with pytest.raises(asyncio.CancelledError):
            await events.caller
        events.caller = None
        assert pool.stats().processes[ProcessState.RESERVED] == 0
        assert await one_turn(pool, "b", "bob") is Start.COLD
        assert factory.made[0].stops == 1


async def test_a_dead_process_is_replaced_and_its_lease_can_still_be_released() -> None:
    """A process that ends by itself is cleaned up; its borrower finds out by name."""
    factory = Factory()
    async with pool_of(factory) as pool:
        lease = await pool.acquire(want("a"), soon())
        factory.made[0].die()
        await asyncio.sleep(1)
        with pytest.raises(WarmlineError, match="CLI_CRASHED"):
            lease.begin_turn()
        lease.release()
        assert factory.made[0].stops == 1, "its slot was not cleaned up"
        assert await one_turn(pool, "a") is Start.COLD


async def test_a_drain_refuses_what_is_new_and_keeps_sessions_going() -> None:
    """In the drain only a session with its own process is served, and once."""
    async with pool_of(Factory(), min_spares=1) as pool:
        await one_turn(pool, "a")
        pool.begin_drain()
        assert (await refusal(pool, "b")).reason is Reason.DRAINING
        assert await one_turn(pool, "a") is Start.HOT
        assert (await refusal(pool, "a")).reason is Reason.DRAINING


async def test_idle_processes_go_after_their_time() -> None:
    """idle_ttl, counted from the end of the last turn."""
    async with pool_of(Factory(), idle_ttl=10.0) as pool:
        await one_turn(pool, "a")
        await asyncio.sleep(9)
        assert await one_turn(pool, "a") is Start.HOT
        await asyncio.sleep(12)
        assert await one_turn(pool, "a") is Start.COLD


async def test_a_process_that_does_not_answer_is_replaced() -> None:
    """A failed ping ends an idle process."""
    factory = Factory()
    async with pool_of(factory, ping_after=5.0) as pool:
        await one_turn(pool, "a")
        factory.made[0].answers = False
        await asyncio.sleep(8)
        assert factory.made[0].exited.done()


async def test_a_swollen_process_is_recycled_between_turns() -> None:
    """Above process_limit_bytes a process is stopped once it is idle, not before."""
    factory = Factory()
    async with pool_of(factory) as pool:
        lease = await pool.acquire(want("a"), soon())
        lease.begin_turn()
        factory.made[0].size = 4 * 1024**3
        await asyncio.sleep(60)
        assert not factory.made[0].exited.done()
        lease.release()
        await asyncio.sleep(1)
        assert factory.made[0].exited.done()


async def test_retiring_replaces_the_idle_now_and_the_busy_after_their_turn() -> None:
    """A new generation leaves a running turn alone."""
    factory = Factory()
    async with pool_of(factory) as pool:
        await one_turn(pool, "idle")
        lease = await pool.acquire(want("busy"), soon())
        lease.begin_turn()
        pool.retire()
        await asyncio.sleep(1)
        assert [process.exited.done() for process in factory.made] == [True, False]
        lease.release()
        await asyncio.sleep(1)
        assert not factory.running


async def test_forgetting_a_session_stops_its_process() -> None:
    """A deleted session keeps nothing."""
    factory = Factory()
    async with pool_of(factory) as pool:
        await one_turn(pool, "a")
        pool.forget("a")
        await asyncio.sleep(1)
        assert not factory.running


async def test_closing_stops_even_what_is_lent() -> None:
    """After aclose no process runs, and a late release does no harm."""
    factory = Factory()
    async with pool_of(factory) as pool:
        lease = await pool.acquire(want("a"), soon())
        lease.begin_turn()
        await pool.aclose()
        assert not factory.running
        lease.release()


async def test_a_stop_that_fails_is_tried_again() -> None:
    """A process that could not be stopped keeps its place until it is gone."""
    factory = Factory()
    async with pool_of(factory, max_processes=1) as pool:
        await one_turn(pool, "a")
        factory.made[0].stop_seconds = 1e6
        pool.forget("a")
        await asyncio.sleep(25)
        assert pool.stats().processes[ProcessState.STOPPING] == 1
        factory.made[0].stop_seconds = 0.1
        await asyncio.sleep(10)
        assert (factory.made[0].stops, len(factory.running)) == (2, 0)


async def test_the_pool_describes_itself_in_the_words_of_its_states() -> None:
    """`repr` and stats use the names of the process states."""
    async with pool_of(Factory(), min_spares=1) as pool:
        await asyncio.sleep(1)
        lease = await pool.acquire(want("a"), soon())
        lease.begin_turn()
        await asyncio.sleep(0.31)
        assert repr(pool) == (
            "<Pool starting=1 spare=0 reserved=0 busy=1 hot=0 stopping=0 waiting=0 max=3>"
        )
        assert repr(lease) == "<Lease fake-0 warm busy>"
        lease.release()
        stats = pool.stats()
        assert stats.processes[ProcessState.HOT] == 1
        assert stats.spare_target == 1


async def test_a_wider_want_takes_the_kind_it_likes_best() -> None:
    """Of the spares that will do, the first named; a lesser one says what it lacks."""
    primed = SpawnKey(primed=True)
    async with pool_of(Factory(), spare_keys=(FRESH, primed), min_spares=1) as pool:
        await asyncio.sleep(1)
        first = await pool.acquire(want("a", "ann", primed, FRESH), soon())
        second = await pool.acquire(want("b", "ann", primed, FRESH), soon())
        assert (first.process.key, first.misses) == (primed, ())
        assert (second.process.key, second.misses) == (FRESH, ("primed",))
        first.release()
        second.release()


async def test_a_tenant_has_no_more_than_its_share() -> None:
    """An idle process of its own makes room for another session's; where all are at work, it is refused."""
    async with pool_of(Factory(), max_processes=10) as pool:
        share = Share(processes=2)

        async def lease_of(session: str, tenant: str = "ann") -> Lease[FakeProcess]:
            wanted = replace(want(session, tenant), share=share)
            return await pool.acquire(wanted, soon())

        first = await lease_of("a")
        first.begin_turn()
        first.release()
        second = await lease_of("b")
        assert pool.stats().processes[ProcessState.HOT] == 1
        third = await lease_of("c")
        assert pool.stats().processes[ProcessState.HOT] == 0
        with pytest.raises(WarmlineError, match="QUOTA_EXCEEDED") as caught:
            await lease_of("d")
        assert caught.value.metadata == {"limit": "2", "quota": "processes"}
        other = await lease_of("e", "bob")
        for lease in (second, third, other):
            lease.release()
        (await lease_of("d")).release()


async def test_as_many_of_a_tenant_wait_as_may() -> None:
    """By its own bound, if that is lower than the pool's."""
    async with pool_of(Factory(), max_processes=1) as pool:
        held = await pool.acquire(want("a"), soon())
        share = Share(waiting=1)
        waiting = asyncio.create_task(pool.acquire(replace(want("b"), share=share), soon()))
        await asyncio.sleep(0.1)
        with pytest.raises(WarmlineError, match="QUEUE_FULL"):
            await pool.acquire(replace(want("c"), share=share), soon())
        held.release()
        (await waiting).release()
