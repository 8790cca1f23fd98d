"""SQLite's one writer: transactions that wait for it are committed together."""

from __future__ import annotations

import contextlib
import sqlite3
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Generic, TypeVar, cast

import sqlalchemy as sa

T = TypeVar("T")
Work = Callable[[sa.Connection], T]

# How long a group may last before its commit, in seconds: about as long as a slow commit takes.
_LONGEST = 0.005
# What a connection says that is no use any more: the driver, or SQLAlchemy around it.
_BROKEN = (sqlite3.Error, sa.exc.SQLAlchemyError)


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
                # Or each would keep the other, by the frames that it came through.
                self._error = None
        return self._results[0]

    def run(self, connection: sa.Connection) -> None:
        """Do the work; it may be done again."""
        self._error = None
        self._results = [self._work(connection)]

    def fail(self, error: BaseException) -> None:
        """What it will be told, unless it is done again."""
        self._error = error

    def end(self) -> None:
        """What it has given, or its failure, is how it stays."""
        self.wanted = False


class SqliteWriter:
    """Runs works one after the other in a thread of its own, in the order in which they come.

    Each is done whole or not at all. A commit waits for the disk: with one for each work, the last of many
    would wait for all of theirs. So those that wait are one transaction, each behind a savepoint, and whoever
    fails is undone alone. Where the transaction is lost as a whole, each is done again in one of its own: a
    work may run twice. Nobody is told of anything before the commit, not even of a failure: it may rest on
    what another one in the group has done.
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
        until = time.monotonic() + _LONGEST
        group: list[Job[Any]] = []
        try:
            self._do(group, until)
        except BaseException as error:
            for job in group:
                job.fail(error)
            raise
        finally:
            for job in group:
                job.end()

    def _do(self, group: list[Job[Any]], until: float) -> None:
        while (not group or time.monotonic() < until) and (job := self._next()) is not None:
            group.append(job)
            if len(group) == 1:
                if not _attempt(job, self._begin):
                    return
            elif not _attempt(job, self._join) and not self._in_transaction:
                self._do_again(group)
                return
        if group and not self._commits(group[-1]) and len(group) > 1:
            self._do_again(group)

    def _next(self) -> Job[Any] | None:
        while self._waiting:
            job = self._waiting.popleft()
            if job.wanted:
                return job
        return None

    def _begin(self, job: Job[Any]) -> None:
        """Begin a transaction with a work; without it there is none."""
        try:
            self._driver().execute("BEGIN IMMEDIATE")
            self._run(job)
        except BaseException:
            self._undo()
            raise

    def _join(self, job: Job[Any]) -> None:
        """Add a work to the transaction; without it that goes on, or is lost as a whole."""
        driver = self._driver()
        driver.execute("SAVEPOINT work")
        try:
            self._run(job)
            driver.execute("RELEASE work")
        except BaseException:
            try:
                if self._in_transaction:
                    driver.execute("ROLLBACK TO work")
                    driver.execute("RELEASE work")
            except sqlite3.Error:
                self._undo()
            raise

    def _run(self, job: Job[Any]) -> None:
        job.run(self._connected())
        if not self._in_transaction:
            raise sqlite3.OperationalError("the transaction was ended by what was done in it")

    def _commits(self, last: Job[Any]) -> bool:
        return _attempt(last, lambda _: self._commit())

    def _commit(self) -> None:
        try:
            self._driver().execute("COMMIT")
        except BaseException:
            self._undo()
            raise

    def _do_again(self, group: list[Job[Any]]) -> None:
        """One by one: so whoever cannot be committed fails alone."""
        self._undo()
        for job in group:
            if _attempt(job, self._begin):
                self._commits(job)

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
        except _BROKEN:
            return False

    def _undo(self) -> None:
        """Roll back what some faults have rolled back already; a connection that cannot is given up."""
        connection, self._connection = self._connection, None
        if connection is None:
            return
        try:
            driver = raw(connection)
            if driver.in_transaction:
                driver.execute("ROLLBACK")
        except _BROKEN:
            with contextlib.suppress(*_BROKEN):
                connection.invalidate()
                connection.close()
        else:
            self._connection = connection


def _attempt(job: Job[Any], run: Callable[[Job[Any]], None]) -> bool:
    try:
        run(job)
    except BaseException as error:  # noqa: BLE001  # whoever waits for it gets it
        job.fail(error)
        return False
    return True


def raw(connection: sa.Connection) -> sqlite3.Connection:
    """SQLite's own connection, within the transaction that is under way."""
    return cast("sqlite3.Connection", connection.connection.dbapi_connection)
