"""SQLite's one writer: transactions that wait for it are committed together."""

from __future__ import annotations

import sqlite3
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Generic, TypeVar, cast

import sqlalchemy as sa

T = TypeVar("T")
Work = Callable[[sa.Connection], T]

# How long a group may last before its commit, in seconds: about as long as a commit takes, so that who
# comes next waits for two of them at most.
_LONGEST = 0.005


class Job(Generic[T]):
    """A work in its place in the queue. Called in the writer's thread, it gives what the work gave."""

    def __init__(self, writer: SqliteWriter, work: Work[T]) -> None:
        self._writer = writer
        self._work = work
        self._results: list[T] = []
        self._error: BaseException | None = None
        # Until it is done, or nobody waits for it any more: one that has not begun then never does.
        self.wanted = True

    def __call__(self) -> T:
        while self.wanted:
            self._writer.run_group()
        if self._error is not None:
            try:
                raise self._error
            finally:
                self._error = (
                    None  # Or each would keep the other, by the frames that it came through.
                )
        return self._results[0]

    def run(self, connection: sa.Connection) -> None:
        """Do the work; it may be done again."""
        self._results = [self._work(connection)]

    def end(self, error: BaseException | None = None) -> None:
        """It is committed, or has failed."""
        self._error = error
        self.wanted = False


class SqliteWriter:
    """Runs works one after the other in a thread of its own, in the order in which they come.

    Each is done whole or not at all. A commit waits for the disk: with one for each work, the last of many
    would wait for all of theirs. So those that wait are one transaction, each behind a savepoint, and whoever
    fails is undone alone. Where the transaction is lost as a whole, each is done again in one of its own: a
    work may run twice.
    """

    def __init__(self, engine: sa.Engine) -> None:
        self.engine = engine
        self.thread = ThreadPoolExecutor(1, "store-writer")
        self._connection: sa.Connection | None = None
        self._waiting: deque[Job[Any]] = deque()

    def enlist(self, work: Work[T]) -> Job[T]:
        """Put a work at the end of the queue; the job is to be called in `thread`."""
        job = Job(self, work)
        self._waiting.append(job)
        return job

    def close(self) -> None:
        """End the thread, after what waits. Blocks."""
        self.thread.shutdown(wait=True)
        if self._connection is not None:
            self._connection.close()
        self.engine.dispose()

    def run_group(self) -> None:
        """Do what waits, up to a bound, and commit it. In the thread, while somebody waits."""
        end = time.monotonic() + _LONGEST
        first = self._next()
        if first is None or not _attempt(first, self._begin):
            return
        group = [first]
        while time.monotonic() < end and (job := self._next()) is not None:
            if _attempt(job, self._join):
                group.append(job)
            elif not self._in_transaction:
                self._do_again(group)
                return
        self._commit(group)

    def _next(self) -> Job[Any] | None:
        while self._waiting:
            job = self._waiting.popleft()
            if job.wanted:
                return job
        return None

    def _begin(self, job: Job[Any]) -> None:
        """Begin a transaction with a work; without it there is none."""
        self._driver().execute("BEGIN IMMEDIATE")
        try:
            job.run(self._connected())
        except BaseException:
            self._undo()
            raise

    def _join(self, job: Job[Any]) -> None:
        """Add a work to the transaction; without it that goes on, or is lost as a whole."""
        driver = self._driver()
        driver.execute("SAVEPOINT work")
        try:
            job.run(self._connected())
            driver.execute("RELEASE work")
        except BaseException:
            try:
                if self._in_transaction:
                    driver.execute("ROLLBACK TO work")
                    driver.execute("RELEASE work")
            except sqlite3.Error:
                self._undo()
            raise

    def _commit(self, group: list[Job[Any]]) -> None:
        try:
            self._driver().execute("COMMIT")
        except BaseException as error:  # noqa: BLE001  # as in `_attempt`
            self._undo()
            if len(group) > 1:
                self._do_again(group)
            else:
                group[0].end(error)
        else:
            for job in group:
                job.end()

    def _do_again(self, group: list[Job[Any]]) -> None:
        """One by one: so whoever cannot be committed fails alone."""
        for job in group:
            if _attempt(job, self._begin):
                self._commit([job])

    def _connected(self) -> sa.Connection:
        """A connection that stays: what SQLAlchemy does around each took longer than a small commit."""
        if self._connection is None:
            self._connection = self.engine.connect()
        return self._connection

    def _driver(self) -> sqlite3.Connection:
        return raw(self._connected())

    @property
    def _in_transaction(self) -> bool:
        try:
            return self._connection is not None and raw(self._connection).in_transaction
        except sqlite3.Error:
            return False

    def _undo(self) -> None:
        """Roll back what some faults have rolled back already; a connection that cannot is given up."""
        if self._connection is None:
            return
        driver = raw(self._connection)
        try:
            if driver.in_transaction:
                driver.execute("ROLLBACK")
        except sqlite3.Error:
            self._connection.invalidate()
            self._connection.close()
            self._connection = None


def _attempt(job: Job[Any], run: Callable[[Job[Any]], None]) -> bool:
    try:
        run(job)
    except BaseException as error:  # noqa: BLE001  # whoever waits for it gets it
        job.end(error)
        return False
    return True


def raw(connection: sa.Connection) -> sqlite3.Connection:
    """SQLite's own connection, within the transaction that is under way."""
    return cast("sqlite3.Connection", connection.connection.dbapi_connection)
