"""After any sequence of events the pool's rules hold, and when faults stop everybody is served."""

import hypothesis.strategies as st
from hypothesis import Phase, settings
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
)
from pool.pool_model import ESTIMATE, IDLE, KINDS, LENT, PoolModel, Seen
from warmline_service.config import MIB, PoolSettings
from warmline_service.worker import SpawnKey

TENANTS = ("ann", "bob", "cid")
SESSIONS = 3


class PoolMachine(RuleBasedStateMachine):
    """Does to a pool whatever callers, processes and time can do."""

    model: PoolModel

    @initialize(
        most=st.integers(1, 5),
        budget=st.sampled_from([150 * MIB, 350 * MIB, 600 * MIB]),
        starting=st.integers(1, 3),
        least=st.integers(0, 1),
    )
    def begin(self, most: int, budget: int, starting: int, least: int) -> None:
        """A pool of some size."""
        limits = PoolSettings(
            max_processes=most,
            process_estimate_bytes=ESTIMATE,
            process_limit_bytes=300 * MIB,
            min_spares=least,
            max_spares=2,
            max_starting=starting,
            max_waiting=6,
            max_waiting_per_tenant=3,
            max_age=1000.0,
        )
        self.model = PoolModel(limits, budget)
        self.model.tick(0.0)

    def pick(self, data: st.DataObject, *states: str) -> Seen | None:
        """One of the processes in these states, or None."""
        found = self.model.those(*states)
        return data.draw(st.sampled_from(found)) if found else None

    @rule(
        tenant=st.sampled_from(TENANTS),
        number=st.integers(1, SESSIONS),
        keys=st.sampled_from(KINDS),
        patience=st.sampled_from([0.0, 3.0, 1e9, 1e9]),
    )
    def want(self, tenant: str, number: int, keys: tuple[SpawnKey, ...], patience: float) -> None:
        """A session wants a process, which it may not while it has one in use or awaits one."""
        session = f"{tenant}-{number}"
        own = self.model.of_session(session)
        waiting = any(waiter.want.session_id == session for waiter in self.model.pending)
        if waiting or (own is not None and own.state in LENT):
            self.model.want_again(tenant, session, keys)
        else:
            self.model.want(tenant, session, keys, patience)

    @rule(data=st.data())
    def cancel(self, data: st.DataObject) -> None:
        """A waiter goes away."""
        if self.model.pending:
            self.model.cancel(data.draw(st.sampled_from([*self.model.pending])))

    @rule(data=st.data(), works=st.sampled_from([True, True, True, False]))
    def start_ends(self, data: st.DataObject, works: bool) -> None:
        """A start succeeds or fails."""
        if (seen := self.pick(data, "starting")) is not None:
            if works:
                self.model.started(seen)
            else:
                self.model.start_failed(seen)

    @rule(data=st.data(), launched=st.booleans())
    def stop_ends(self, data: st.DataObject, launched: bool) -> None:
        """A stopped process is gone; a cancelled start may have given a process first."""
        if (seen := self.pick(data, "stopping")) is not None:
            if launched and not seen.born:
                self.model.started(seen)
            self.model.exited(seen)

    @rule(data=st.data())
    def dies(self, data: st.DataObject) -> None:
        """A process ends by itself."""
        if (seen := self.pick(data, *IDLE, *LENT)) is not None:
            self.model.exited(seen)

    @rule(data=st.data())
    def turn_begins(self, data: st.DataObject) -> None:
        """A borrower starts a turn."""
        if (seen := self.pick(data, "reserved")) is not None:
            self.model.turn_begun(seen)

    @rule(data=st.data())
    def binds(self, data: st.DataObject) -> None:
        """A borrower has bound its process."""
        if (seen := self.pick(data, "reserved")) is not None:
            self.model.bind(seen)

    @rule(data=st.data(), poisoned=st.sampled_from([False, False, True]))
    def release(self, data: st.DataObject, poisoned: bool) -> None:
        """A borrower gives back, also what has died meanwhile."""
        held = [seen for seen in self.model.seen.values() if seen.waiter is not None]
        if held:
            self.model.release(data.draw(st.sampled_from(held)), poisoned=poisoned)

    @rule(seconds=st.sampled_from([0.5, 1.0, 5.0, 40.0, 310.0]))
    def time_passes(self, seconds: float) -> None:
        """The keeper's round after some time."""
        self.model.tick(seconds)

    @rule(data=st.data(), size=st.sampled_from([50, 90, 160, 320]))
    def weigh(self, data: st.DataObject, size: int) -> None:
        """A process is measured."""
        if (seen := self.pick(data, *IDLE, *LENT)) is not None:
            self.model.weigh({seen: size * MIB})

    @rule(data=st.data(), answered=st.booleans())
    def ping_ends(self, data: st.DataObject, answered: bool) -> None:
        """A ping is answered or not."""
        pinged = [seen for seen in self.model.seen.values() if seen.member in self.model.pings]
        if pinged:
            self.model.pinged(data.draw(st.sampled_from(pinged)), answered=answered)

    @rule(tenant=st.sampled_from(TENANTS), number=st.integers(1, SESSIONS))
    def forget(self, tenant: str, number: int) -> None:
        """A session is over."""
        self.model.forget(f"{tenant}-{number}")

    @rule(sure=st.sampled_from([False, False, True]))
    def retire(self, sure: bool) -> None:
        """The configuration changes, now and then."""
        if sure:
            self.model.retire()

    @precondition(lambda self: not self.model.draining)
    @rule(sure=st.sampled_from([False, False, True]))
    def drain(self, sure: bool) -> None:
        """The end begins, seldom."""
        if sure:
            self.model.drain()

    @invariant()
    def holds(self) -> None:
        """What must be so at any time."""
        self.model.check_books()
        self.model.check_nobody_forgotten()
        self.model.check_spares()

    def teardown(self) -> None:
        """From here on all starts work, all stops end, and whoever is served gives back."""
        if not hasattr(self, "model"):
            return
        for _ in range(80):
            if not self.model.pending:
                break
            self.calm_round()
        assert not self.model.pending, "a waiter was forgotten"

    def calm_round(self) -> None:
        """One round without faults."""
        for seen in [*self.model.seen.values()]:
            if seen.state == "stopping":
                self.model.exited(seen)
            elif seen.state == "starting":
                self.model.started(seen)
            if seen.waiter is not None:
                self.model.release(seen, poisoned=False)
        self.model.tick(2.0)


TestPool = PoolMachine.TestCase
TestPool.settings = settings(
    max_examples=150,
    stateful_step_count=50,
    deadline=None,
    # Explaining traces every line and takes minutes; the shrunk steps say enough.
    phases=(Phase.explicit, Phase.reuse, Phase.generate, Phase.shrink),
)
