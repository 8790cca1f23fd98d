"""What an observer of the pool is told; metrics implement it elsewhere."""

from __future__ import annotations

from typing import Protocol

from warmline_service.errors import Reason
from warmline_service.pool._actions import Why
from warmline_service.pool._want import Start
from warmline_service.worker import SpawnKey


class PoolEvents(Protocol):
    """Called at once as things happen; must neither block nor raise. Durations are seconds."""

    def granted(self, start: Start, misses: tuple[str, ...], queue_seconds: float) -> None:
        """A session got a process."""

    def refused(self, reason: Reason) -> None:
        """A session got none."""

    def started(self, key: SpawnKey, seconds: float) -> None:
        """A process came up."""

    def start_failed(self, key: SpawnKey) -> None:
        """A process did not come up."""

    def stopped(self, why: Why) -> None:
        """The pool stops a process."""

    def exited(self) -> None:
        """A process ended by itself."""


class SilentEvents:
    """Nobody observes."""

    def granted(self, start: Start, misses: tuple[str, ...], queue_seconds: float) -> None:
        """Nothing to do."""

    def refused(self, reason: Reason) -> None:
        """Nothing to do."""

    def started(self, key: SpawnKey, seconds: float) -> None:
        """Nothing to do."""

    def start_failed(self, key: SpawnKey) -> None:
        """Nothing to do."""

    def stopped(self, why: Why) -> None:
        """Nothing to do."""

    def exited(self) -> None:
        """Nothing to do."""
