"""The times when the store cannot be used: how long one lasts, and what is said in it."""

from __future__ import annotations

import asyncio

import structlog

from warmline_service.config import StoreSettings
from warmline_service.errors import Reason, WarmlineError

_log = structlog.get_logger(__name__)


class Outage:
    """Which halves of the store have failed, and whether that has become too much to wait for."""

    def __init__(self, settings: StoreSettings) -> None:
        self._settings = settings
        # Since when which half of the store has failed.
        self.down: dict[str, float] = {}
        self.overdue = False

    def check(self) -> None:
        """Raise STORAGE_UNAVAILABLE while the store is down."""
        if self.down:
            raise store_down()

    def failed(self, what: str, error: Exception) -> None:
        """A half of the store could not be used."""
        if what not in self.down:
            _log.error("the store is down", of=what, error=repr(error), exc_info=error)
            self.down[what] = asyncio.get_running_loop().time()

    def becomes_overdue(self, pending_bytes: int) -> bool:
        """Whether it has just become too long, or too much waits; once in each outage.

        To be asked only while something is down.
        """
        down = asyncio.get_running_loop().time() - min(self.down.values())
        too_long = down > self._settings.outage_grace
        too_much = pending_bytes > self._settings.pending_bytes
        if self.overdue or not (too_long or too_much):
            return False
        self.overdue = True
        return True

    def recovered(self, what: str) -> None:
        """A half of the store has done its work."""
        if self.down.pop(what, None) is not None:
            _log.info("the store is up again", of=what)
        if not self.down:
            self.overdue = False


def store_down() -> WarmlineError:
    """STORAGE_UNAVAILABLE, with when to come again."""
    return WarmlineError(
        Reason.STORAGE_UNAVAILABLE,
        "The store cannot be used at the moment, so no turn can begin.",
        retry_after=2.0,
    )
