"""Which faults there are, and in which order a seed brings them."""

from __future__ import annotations

import enum
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass


class Kind(enum.Enum):
    """A kind of fault."""

    CLI_KILL = "a CLI process: SIGKILL"
    CLI_KILL_ALL = "every CLI process: SIGKILL"
    SERVICE_KILL = "service: SIGKILL, start"
    SERVICE_DRAIN = "service: SIGTERM, start"
    SERVICE_KILL_DRAINING = "service: SIGKILL while it drains, start"
    SERVICE_KILL_STARTING = "service: SIGKILL, again while it starts, start"
    CLIENT_RESET = "a client's connection: reset"
    CLIENT_STALL = "a client's connection: half open, then reset"
    CLIENT_CUT = "a client's connection: cut in mid-message"
    CLIENT_CANCEL = "client: gives up, comes back by cursor"
    CLIENT_TAKEOVER = "another client takes the session over"
    OBSERVER_RESET = "an observer's connection: reset"
    DB_KILL = "PostgreSQL: SIGKILL, start"
    DB_TERMINATE = "PostgreSQL: pg_terminate_backend"
    DB_FREEZE = "PostgreSQL: SIGSTOP, SIGCONT of its backends"
    DB_RESET = "PostgreSQL: connections reset"
    DB_LOST_ANSWER = "PostgreSQL: an answer lost, after it was done"
    DISK_FULL = "SQLite: disk full"


_COMMON = {
    Kind.CLI_KILL: 18,
    Kind.CLI_KILL_ALL: 4,
    Kind.SERVICE_KILL: 8,
    Kind.SERVICE_DRAIN: 5,
    Kind.SERVICE_KILL_DRAINING: 3,
    Kind.SERVICE_KILL_STARTING: 3,
    Kind.CLIENT_RESET: 13,
    Kind.CLIENT_STALL: 6,
    Kind.CLIENT_CUT: 12,
    Kind.CLIENT_CANCEL: 10,
    Kind.CLIENT_TAKEOVER: 7,
    Kind.OBSERVER_RESET: 6,
}
_POSTGRES = {
    Kind.DB_KILL: 4,
    Kind.DB_TERMINATE: 5,
    Kind.DB_FREEZE: 4,
    Kind.DB_RESET: 4,
    Kind.DB_LOST_ANSWER: 8,
}
# Seconds from one fault to the next.
_PAUSE = (0.02, 0.6)


@dataclass(frozen=True)
class Fault:
    """What to do, how long after the last one, and a seed for its details."""

    number: int
    kind: Kind
    pause: float
    seed: int


def kinds_for(store: str, *, disk: bool) -> dict[Kind, int]:
    """The faults that can be made, by how often."""
    own = _POSTGRES if store == "postgres" else ({Kind.DISK_FULL: 8} if disk else {})
    return _COMMON | own


def schedule(seed: int, count: int, kinds: dict[Kind, int], pace: float = 1.0) -> Sequence[Fault]:
    """The same faults for the same seed: first one of each kind, in any order, then by their weights.

    `pace` makes the time between them longer.
    """
    return list(_faults(random.Random(seed), count, kinds, pace))


def _faults(rng: random.Random, count: int, kinds: dict[Kind, int], pace: float) -> Iterator[Fault]:
    first = list(kinds)
    rng.shuffle(first)
    for number in range(count):
        kind = first[number] if number < len(first) else rng.choices(*_weighed(kinds))[0]
        yield Fault(number, kind, pace * rng.uniform(*_PAUSE), rng.getrandbits(32))


def _weighed(kinds: dict[Kind, int]) -> tuple[list[Kind], list[int]]:
    return list(kinds), list(kinds.values())
