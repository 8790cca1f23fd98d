"""Counts what turns have used: told at once, written a little later, all that has come up together."""

from __future__ import annotations

import asyncio
from collections import OrderedDict

import structlog

from warmline_service.errors import WarmlineError
from warmline_service.store import Ledger, UsageRow, new_batch

_log = structlog.get_logger(__name__)

_Rows = OrderedDict[tuple[str, str, str], UsageRow]

_AGAIN = 1.0
_CLOSE_TIMEOUT = 5.0
# Rows that wait are one for each tenant, day and model, so only a store that is long away fills this.
_MOST_ROWS = 100_000


class Books:
    """The only one that writes what was used; `start` first, `aclose` last."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self._rows: _Rows = OrderedDict()
        self._ended: set[str] = set()
        self._changed = asyncio.Event()
        self._idle = asyncio.Event()
        self._idle.set()
        self._writing: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin to write."""
        self._writing = asyncio.create_task(self._write())

    def count(self, used: list[UsageRow], reservation: str) -> None:
        """Count what a turn has used, and give up its reservation if it has one."""
        if not used and not reservation:
            return
        for each in used:
            self._add(each)
        if len(self._rows) > _MOST_ROWS:
            key, lost = self._rows.popitem(last=False)
            _log.error("usage lost: the store was away for too long", tenant=key[0], row=lost)
        if reservation:
            self._ended.add(reservation)
        self._idle.clear()
        self._changed.set()

    async def written(self) -> None:
        """Wait until what was counted is stored."""
        await self._idle.wait()

    async def aclose(self) -> None:
        """Write what is left, within a bound."""
        if self._writing is None:
            return
        try:
            async with asyncio.timeout(_CLOSE_TIMEOUT):
                await self._idle.wait()
        except TimeoutError:
            _log.error("usage lost at the end", rows=len(self._rows))
        self._writing.cancel()
        await asyncio.wait({self._writing})

    async def _write(self) -> None:
        while True:
            await self._changed.wait()
            self._changed.clear()
            rows, ended, batch = self._rows, self._ended, new_batch()
            self._rows, self._ended = OrderedDict(), set()
            # The same again: the store knows a batch that it has taken without saying so.
            await self._settle(batch, rows, ended)
            if not self._rows and not self._ended:
                self._idle.set()

    async def _settle(self, batch: str, rows: _Rows, ended: set[str]) -> None:
        while True:
            try:
                return await self._ledger.settle(batch, list(rows.values()), ended)
            except WarmlineError as error:
                _log.warning("usage not written yet", reason=error.reason.value)
                await asyncio.sleep(_AGAIN)

    def _add(self, row: UsageRow) -> None:
        known = self._rows.get(row.key)
        self._rows[row.key] = row if known is None else known.plus(row)
