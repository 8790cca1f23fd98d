"""Long walks through the life of a busy pool, which random rules alone seldom get to."""

from collections.abc import Callable
from random import Random

import pytest
from pool.pool_model import ESTIMATE, IDLE, KINDS, LENT, PoolModel, Seen
from warmline_service.config import MIB, PoolSettings

STEPS = 400


class Walk:
    """Chooses what happens next, in the proportions of a service under load with some faults."""

    def __init__(self, seed: int) -> None:
        self.random = Random(seed)  # noqa: S311 - the same walk each time
        limits = PoolSettings(
            max_processes=self.random.randint(1, 6),
            process_estimate_bytes=ESTIMATE,
            process_limit_bytes=300 * MIB,
            min_spares=self.random.randint(0, 1),
            max_spares=2,
            refill_delay=self.random.choice((0.0, 0.3)),
            max_starting=self.random.randint(1, 3),
            max_waiting=6,
            max_waiting_per_tenant=3,
            max_age=120.0,
            idle_ttl=60.0,
        )
        self.model = PoolModel(limits, self.random.choice([150, 350, 600]) * MIB)
        self.model.tick(0.0)
        self.moves: dict[Callable[[], None], int] = {
            self.want: 12,
            self.cancel: 1,
            self.start_ends: 10,
            self.stop_ends: 8,
            self.borrower: 14,
            self.dies: 1,
            self.time_passes: 4,
            self.moment_passes: 3,
            self.weigh: 2,
            self.ping_ends: 2,
            self.forget: 1,
        }

    def run(self) -> None:
        """Walk, drain on some days, and come to the end."""
        for step in range(STEPS):
            self.random.choices([*self.moves], [*self.moves.values()])[0]()
            if step == STEPS // 2 and self.random.random() < 0.3:
                self.model.retire()
            self.check()
        if self.random.random() < 0.5:
            self.model.drain()
            self.check()
        self.model.close()

    def check(self) -> None:
        """What must be so at any time."""
        self.model.check_books()
        self.model.check_nobody_forgotten()
        self.model.check_spares()

    def one_of(self, *states: str) -> list[Seen]:
        """One of the processes in these states, if there is one."""
        found = self.model.those(*states)
        return self.random.sample(found, min(1, len(found)))

    def want(self) -> None:
        """A session wants a process, again maybe while it has one."""
        tenant = self.random.choice(["ann", "bob", "cid"])
        session, keys = f"{tenant}-{self.random.randint(1, 4)}", self.random.choice(KINDS)
        own = self.model.of_session(session)
        waits = session in [waiter.want.session_id for waiter in self.model.pending]
        if waits or (own is not None and own.state in LENT):
            self.model.want_again(tenant, session, keys)
        else:
            self.model.want(tenant, session, keys, self.random.choice([0.0, 3.0, 1e9, 1e9, 1e9]))

    def cancel(self) -> None:
        """Somebody gives up."""
        if self.model.pending:
            self.model.cancel(self.random.choice([*self.model.pending]))

    def start_ends(self) -> None:
        """Starts fail in bad times, of which there are some."""
        bad = self.model.now % 100 < 15
        for seen in self.one_of("starting"):
            if bad and self.random.random() < 0.9:
                self.model.start_failed(seen)
            else:
                self.model.started(seen)

    def stop_ends(self) -> None:
        """A cancelled start may have given a process first."""
        for seen in self.one_of("stopping"):
            if not seen.up and self.random.random() < 0.5:
                self.model.started(seen)
            self.model.exited(seen)

    def borrower(self) -> None:
        """The next step of a turn."""
        if not (held := self.model.held()):
            return
        seen = self.random.choice(held)
        if seen.state == "reserved" and self.random.random() < 0.7:
            self.random.choice([self.model.bind, self.model.turn_begun])(seen)
        else:
            self.model.release(seen, poisoned=self.random.random() < 0.1)

    def dies(self) -> None:
        """A process ends by itself."""
        for seen in self.one_of(*IDLE, *LENT):
            self.model.exited(seen)

    def time_passes(self) -> None:
        """Mostly seconds, at times minutes."""
        self.model.tick(self.random.choice([0.5, 1.0, 1.0, 4.0, 20.0, 40.0, 70.0]))

    def moment_passes(self) -> None:
        """Time that the keeper has not seen."""
        self.model.pause(self.random.choice([0.1, 2.0]))

    def weigh(self) -> None:
        """Processes grow."""
        for seen in self.one_of(*IDLE, *LENT):
            self.model.weigh({seen: self.random.choice([50, 90, 90, 160, 240, 320]) * MIB})

    def ping_ends(self) -> None:
        """A ping is answered, or not."""
        for member in [*self.model.pings][:1]:
            seen = self.model.seen[member]
            self.model.pinged(seen, answered=self.random.random() < 0.7)

    def forget(self) -> None:
        """A session is over."""
        for seen in self.one_of(*LENT, "hot"):
            self.model.forget(str(seen.session))


@pytest.mark.parametrize("seed", range(40))
def test_the_rules_hold_on_a_long_walk(seed: int) -> None:
    """Whatever order things come in: the books agree, nothing is lost, no cap is broken."""
    Walk(seed).run()
