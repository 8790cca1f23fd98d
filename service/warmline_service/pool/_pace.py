"""How long things take here: starts, and the use of a process; smoothed, in seconds."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from warmline_service.worker import SpawnKey

_WEIGHT = 0.2
_LONGEST_ADVICE = 60.0


class Pace:
    """Smoothed durations and the advice that follows from them."""

    def __init__(self) -> None:
        # By whether the process is warmed up: no other part of the key changes a start's duration.
        self._spawn_seconds = {False: 1.0, True: 1.0}
        self._held_seconds = 1.0

    @property
    def spawn_seconds(self) -> Mapping[bool, float]:
        """A start's usual duration, by whether the process is warmed up; a live view."""
        return MappingProxyType(self._spawn_seconds)

    def spawned(self, key: SpawnKey, seconds: float) -> None:
        """A start took so long."""
        before = self._spawn_seconds[key.prepared]
        self._spawn_seconds[key.prepared] = before + _WEIGHT * (seconds - before)

    def held(self, seconds: float) -> None:
        """A borrower had a process for so long."""
        self._held_seconds += _WEIGHT * (seconds - self._held_seconds)

    def retry_after(self, in_use: int, waiting: int) -> float:
        """Seconds until one more is likely to find a process: a use's share of all in use."""
        seconds = self._held_seconds * (waiting + 1) / max(1, in_use)
        return min(_LONGEST_ADVICE, max(1.0, seconds))
