"""The pool in numbers, in the words of its states."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from warmline_service.pool._core import Core
from warmline_service.worker import ProcessState

SHOWN = tuple(state for state in ProcessState if state is not ProcessState.GONE)


@dataclass(frozen=True)
class PoolStats:
    """Processes by state, callers that wait, and the caps. Memory is in bytes, as committed."""

    processes: Mapping[ProcessState, int]
    waiting: int
    max_processes: int
    memory_committed: int
    memory_budget: int
    spare_target: int
    draining: bool


def stats_of(core: Core, now: float) -> PoolStats:
    """Read the numbers off the core at loop time `now`."""
    return PoolStats(
        processes={state: core.books.count(state) for state in SHOWN},
        waiting=len(core.queue),
        max_processes=core.room.most,
        memory_committed=core.books.committed,
        memory_budget=core.room.budget,
        spare_target=sum(demand.target(now) for demand in core.demand.values()),
        draining=core.draining,
    )


def describe(core: Core) -> str:
    """One line for logs and debuggers."""
    counts = " ".join(f"{state}={core.books.count(state)}" for state in SHOWN)
    draining = " draining" if core.draining else ""
    return f"<Pool {counts} waiting={len(core.queue)} max={core.room.most}{draining}>"
