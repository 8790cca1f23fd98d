"""Starts that fail: back-off for each key, and when to stop making its waiters wait."""

from __future__ import annotations

from dataclasses import dataclass

from warmline_service.errors import WarmlineError
from warmline_service.worker import SpawnKey

MAX_BACKOFF = 60.0
GIVE_UP_AFTER = 3


@dataclass
class _Record:
    failures: int
    not_before: float
    cause: WarmlineError


class StartFailures:
    """The failures in a row of each key. `first_backoff` is seconds; it doubles up to a minute."""

    def __init__(self, first_backoff: float) -> None:
        self._first_backoff = first_backoff
        self._records: dict[SpawnKey, _Record] = {}

    def failed(self, key: SpawnKey, cause: WarmlineError, now: float) -> None:
        """Count one more failure in a row."""
        failures = self._records[key].failures + 1 if key in self._records else 1
        # The exponent is bounded so that no long outage overflows the power.
        backoff = min(MAX_BACKOFF, self._first_backoff * 2.0 ** min(failures - 1, 16))
        self._records[key] = _Record(failures, now + backoff, cause)

    def succeeded(self, key: SpawnKey) -> None:
        """Forget the failures of a key."""
        self._records.pop(key, None)

    def may_start(self, key: SpawnKey, starting: int, now: float) -> bool:
        """Whether to try a start: after a failure one at a time, and not before its back-off."""
        record = self._records.get(key)
        return record is None or (starting == 0 and now >= record.not_before)

    def hopeless(self, key: SpawnKey, now: float) -> tuple[WarmlineError, float] | None:
        """The cause and the seconds to the next try, where waiting for a start makes no sense."""
        record = self._records.get(key)
        # What a process resumes is one session's, and whoever asked has other ways left.
        tries = GIVE_UP_AFTER if key.resume is None else 1
        if record is None or record.failures < tries or now >= record.not_before:
            return None
        return record.cause, record.not_before - now

    def prune(self, now: float) -> None:
        """Drop what is long past: keys are callers' input, so the table must not grow for ever."""
        self._records = {
            key: record
            for key, record in self._records.items()
            if now < record.not_before + MAX_BACKOFF
        }
