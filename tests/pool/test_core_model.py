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
    drains: bool

    @initialize(
        most=st.integers(1, 5),
        budget=st.sampled_from([150 * MIB, 350 * MIB, 600 * MIB]),
        starting=st.integers(1, 3),
        least=st.integers(0, 1),
        delay=st.sampled_from([0.0, 0.3]),
        drains=st.sampled_from([False, False, False, True]),
    )
    def begin(
        self, most: int, budget: int, starting: int, least: int, delay: float, drains: bool
    ) -> None:
        """A pool of some size."""
        self.drains = drains
        limits = PoolSettings(
            max_processes=most,
            process_estimate_bytes=ESTIMATE,
            process_limit_bytes=300 * MIB,
            min_spares=least,
            max_spares=2,
            refill_delay=delay,
            max_starting=starting,
            max_waiting=6,
            max_waiting_per_tenant=3,
            max_age=1000.0,
        )
        self.model = PoolModel(limits, budget)
        self.model.tick(0.0)

    def pick(self, data: st.DataObject, *states: str) -> Seen:
        """One of the processes in these states."""
        return data.draw(st.sampled_from(self.model.those(*states)))

    @rule(
        tenant=st.sampled_from(TENANTS),
        number=st.integers(1, SESSIONS),
        keys=st.sampled_from(KINDS),
        patience=st.sampled_from([1e9, 1e9, 1e9, 3.0, 0.0]),
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

    @precondition(lambda self: self.model.those("hot"))
    @rule(data=st.data())
    def want_hot(self, data: st.DataObject) -> None:
        """A session comes back for its own process."""
        session = self.pick(data, "hot").session
        assert session is not None
        self.model.want(self.model.owners[session], session, KINDS[0], 3.0)

    @precondition(lambda self: self.model.pending)
    @rule(data=st.data())
    def cancel(self, data: st.DataObject) -> None:
        """A waiter goes away."""
        self.model.cancel(data.draw(st.sampled_from([*self.model.pending])))

    @precondition(lambda self: self.model.those("starting"))
    @rule(data=st.data())
    def start_works(self, data: st.DataObject) -> None:
        """A process comes up."""
        self.model.started(self.pick(data, "starting"))

    @precondition(lambda self: self.model.those("starting"))
    @rule(data=st.data(), times=st.integers(1, 4))
    def start_fails(self, data: st.DataObject, times: int) -> None:
        """A start fails, and maybe the next ones too."""
        key = self.pick(data, "starting").member.key
        for _ in range(times):
            for seen in self.model.those("starting"):
                if seen.member.key == key:
                    self.model.start_failed(seen)
            self.model.tick(self.model.patience_for(key) if times > 1 else 0.5)

    @precondition(lambda self: self.model.those("stopping"))
    @rule(data=st.data(), launched=st.booleans())
    def stop_ends(self, data: st.DataObject, launched: bool) -> None:
        """A stopped process is gone; a cancelled start may have given a process first."""
        seen = self.pick(data, "stopping")
        if launched and not seen.up:
            self.model.started(seen)
        self.model.exited(seen)

    @precondition(lambda self: self.model.those(*IDLE, *LENT))
    @rule(data=st.data())
    def dies(self, data: st.DataObject) -> None:
        """A process ends by itself."""
        self.model.exited(self.pick(data, *IDLE, *LENT))

    @precondition(lambda self: self.model.those("reserved"))
    @rule(data=st.data())
    def turn_begins(self, data: st.DataObject) -> None:
        """A borrower starts a turn."""
        self.model.turn_begun(self.pick(data, "reserved"))

    @precondition(lambda self: self.model.those("reserved"))
    @rule(data=st.data())
    def binds(self, data: st.DataObject) -> None:
        """A borrower has bound its process."""
        self.model.bind(self.pick(data, "reserved"))

    @precondition(lambda self: self.model.those("reserved"))
    @rule()
    def whole_turns(self) -> None:
        """All who can run a turn and give back."""
        for seen in self.model.those("reserved"):
            if seen.state == "reserved":
                self.model.turn_begun(seen)
                self.model.release(seen, poisoned=False)

    @precondition(lambda self: self.model.held())
    @rule(data=st.data(), poisoned=st.sampled_from([False, False, True]))
    def release(self, data: st.DataObject, poisoned: bool) -> None:
        """A borrower gives back, also what has died meanwhile."""
        seen = data.draw(st.sampled_from(self.model.held()))
        self.model.release(seen, poisoned=poisoned)

    @rule()
    def settle(self) -> None:
        """All starts and stops come to their ends."""
        for seen in self.model.those("stopping"):
            self.model.exited(seen)
        for seen in self.model.those("starting"):
            if seen.state == "starting":
                self.model.started(seen)

    @rule(seconds=st.sampled_from([0.5, 1.0, 5.0, 40.0, 310.0]))
    def time_passes(self, seconds: float) -> None:
        """The keeper's round after some time."""
        self.model.tick(seconds)

    @precondition(lambda self: self.model.those(*IDLE, *LENT))
    @rule(size=st.sampled_from([50, 90, 160, 240, 320]), every=st.booleans(), data=st.data())
    def weigh(self, data: st.DataObject, size: int, every: bool) -> None:
        """Processes are measured."""
        found = self.model.those(*IDLE, *LENT) if every else [self.pick(data, *IDLE, *LENT)]
        self.model.weigh(dict.fromkeys(found, size * MIB))

    @precondition(lambda self: self.model.pings)
    @rule(data=st.data(), answered=st.booleans())
    def ping_ends(self, data: st.DataObject, answered: bool) -> None:
        """A ping is answered or not."""
        pinged = [seen for seen in self.model.seen.values() if seen.member in self.model.pings]
        self.model.pinged(data.draw(st.sampled_from(pinged)), answered=answered)

    @rule(tenant=st.sampled_from(TENANTS), number=st.integers(1, SESSIONS))
    def forget(self, tenant: str, number: int) -> None:
        """A session is over."""
        self.model.forget(f"{tenant}-{number}")

    @precondition(lambda self: len(self.model.seen) > 4 * (self.model.generation + 1))
    @rule()
    def retire(self) -> None:
        """The configuration changes, now and then."""
        self.model.retire()

    @precondition(lambda self: self.drains and not self.model.draining)
    @rule()
    def drain(self) -> None:
        """The end begins, in some runs."""
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
        if len(self.model.seen) % 3 == 0:
            self.model.drain()
        for _ in range(80):
            if not self.model.pending:
                break
            self.calm_round()
        assert not self.model.pending, "a waiter was forgotten"
        self.model.close()

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
    max_examples=200,
    stateful_step_count=80,
    deadline=None,
    # Explaining traces every line and takes minutes; the shrunk steps say enough.
    phases=(Phase.explicit, Phase.reuse, Phase.generate, Phase.shrink),
)
