"""Where the store's statements run: one function, given a connection, is one transaction.

The functions are written once, for SQLAlchemy's `Connection`. How they are run differs: SQLite's run in a
thread of its own, so that a transaction costs one change of threads; PostgreSQL's on the event loop,
by SQLAlchemy's asyncio engine.
"""

from __future__ import annotations

import asyncio
import errno
import importlib.util
import sqlite3
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Protocol, TypeVar

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import create_async_engine
from sqlalchemy.pool import QueuePool, StaticPool

from warmline_service.errors import Reason, WarmlineError
from warmline_service.store._apart import run_apart
from warmline_service.store._sqlite_writer import SqliteWriter, raw

T = TypeVar("T")

_READERS = 2
# A group of events touches a page for each of its sessions, and each is written whole: with 4 KiB, which is
# SQLite's default, a commit of 18 sessions took 1.7 times as long (1.44 and 0.85 ms). For new databases.
_PAGE_SIZE = 1024
# The writer waits for a checkpoint, so it is to come rarely: with SQLite's 1,000 pages every 50 groups.
_CHECKPOINT_BYTES = 16 * 1024 * 1024
_CONNECTIONS = 5
_CONNECT_TIMEOUT = 5.0
# Two transactions that want each other's rows: PostgreSQL undoes one of them, which is tried again.
_AGAIN = ("40P01", "40001")
_TRIES = 3
_RETRY_AFTER = 2.0
_REFUSALS = (
    sa.exc.IntegrityError,
    sa.exc.DataError,
    sqlite3.IntegrityError,
    sqlite3.DataError,
)
# PostgreSQL's class of codes for it; asyncpg has no exception of its own for what it refuses itself.
_DATA_EXCEPTION = "22"


class Database(Protocol):
    """Runs transactions.

    Both raise STORAGE_UNAVAILABLE where the database cannot be used at this moment, and then nothing
    was done, or, after a time-out or a lost connection, all of it may have been. What the database
    takes from nobody raises the driver's own error.
    """

    async def write(self, work: Callable[[sa.Connection], T], timeout: float) -> T:
        """Run `work` in a transaction that is committed on return, within `timeout` seconds."""
        ...

    async def read(self, work: Callable[[sa.Connection], T], timeout: float) -> T:
        """Run `work`, which changes nothing."""
        ...

    async def prepare(self, work: Callable[[sa.Connection], None], timeout: float) -> None:
        """As `write`, for work that also reads files; before everything else."""
        ...

    async def aclose(self) -> None:
        """Close every connection, after what runs has ended."""
        ...


def open_database(url: str, path: Path) -> Database:
    """The PostgreSQL database at `url`, or with an empty one the SQLite file at `path`.

    Nothing is connected yet. Raises ValueError for another kind of URL.
    """
    if not url:
        return SqliteDatabase(path)
    try:
        parsed = sa.make_url(url)
    except sa.exc.ArgumentError:
        raise ValueError(
            "store.url: not a URL, such as postgresql://USER:PASSWORD@HOST/DB"
        ) from None
    if parsed.get_backend_name() != "postgresql":
        raise ValueError("store.url: only postgresql:// is supported; empty for SQLite")
    if importlib.util.find_spec("asyncpg") is None:
        raise ValueError("store.url: PostgreSQL needs `pip install 'warmline[postgres]'`")
    return PostgresDatabase(parsed.set(drivername="postgresql+asyncpg"))


class SqliteDatabase:
    """One file, one connection that writes and checkpoints, and a few that only read.

    SQLite before 3.51.3 can corrupt a file that two connections write and checkpoint.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._writer = SqliteWriter(_sqlite_engine(path, read_only=False))
        self._reader = _sqlite_engine(path, read_only=True)
        self._reading = ThreadPoolExecutor(_READERS, "store-reader")

    async def write(self, work: Callable[[sa.Connection], T], timeout: float) -> T:
        """Run `work` in a transaction that is committed on return, maybe with others that waited."""
        job = self._writer.enlist(work)
        try:
            return await in_thread(self._writer.thread, job, timeout)
        finally:
            job.wanted = False

    async def read(self, work: Callable[[sa.Connection], T], timeout: float) -> T:
        """Run `work` on a snapshot."""

        def run() -> T:
            with self._reader.connect() as connection:
                return work(connection)

        return await in_thread(self._reading, run, timeout)

    async def prepare(self, work: Callable[[sa.Connection], None], timeout: float) -> None:
        """As `write`, which has a thread anyway."""

        def run() -> None:
            with self._writer.engine.connect() as connection:
                # What is made beside it gets the same mode: nobody else's business.
                self.path.chmod(0o600)
                # Ended by way of SQLAlchemy, as who prepares expects it.
                raw(connection).execute("BEGIN IMMEDIATE")
                with connection.begin():
                    work(connection)

        await in_thread(self._writer.thread, run, timeout)

    async def aclose(self) -> None:
        """Close every connection, after what runs has ended."""

        def close() -> None:
            self._reading.shutdown(wait=True)
            self._writer.close()
            self._reader.dispose()

        await asyncio.to_thread(close)


class PostgresDatabase:
    """A PostgreSQL server; a lost connection is replaced with the next transaction."""

    def __init__(self, url: sa.URL) -> None:
        self._engine = create_async_engine(
            url,
            hide_parameters=True,
            pool_size=_CONNECTIONS,
            max_overflow=_CONNECTIONS,
            pool_timeout=_CONNECT_TIMEOUT,
            connect_args=_connect_args(),
        )

    async def write(self, work: Callable[[sa.Connection], T], timeout: float) -> T:
        """Run `work` in a transaction that is committed on return."""

        async def run() -> T:
            for _ in range(_TRIES - 1):
                try:
                    return await once()
                except sa.exc.DBAPIError as error:
                    if getattr(error.orig, "sqlstate", None) not in _AGAIN:
                        raise
            return await once()

        async def once() -> T:
            async with self._engine.begin() as connection:
                return await connection.run_sync(work)

        return await _bounded(run(), timeout)

    async def read(self, work: Callable[[sa.Connection], T], timeout: float) -> T:
        """Run `work`; each statement sees what is committed when it begins."""

        async def run() -> T:
            async with self._engine.connect() as connection:
                return await connection.run_sync(work)

        return await _bounded(run(), timeout)

    async def prepare(self, work: Callable[[sa.Connection], None], timeout: float) -> None:
        """As `write`, in a thread with an event loop and a connection of its own."""
        url = self._engine.url
        await _bounded(asyncio.to_thread(run_apart, url, _connect_args(), work), timeout)

    async def aclose(self) -> None:
        """Close every connection."""
        await self._engine.dispose()


def _connect_args() -> dict[str, Any]:
    return {"timeout": _CONNECT_TIMEOUT}


def alone(connection: sa.Connection, name: str) -> None:
    """Let no other transaction that asks for the same name come in between; SQLite has one writer anyway."""
    if connection.dialect.name == "postgresql":
        key = sa.func.hashtextextended(f"warmline {name}", 0)
        connection.execute(sa.select(sa.func.pg_advisory_xact_lock(key)))


def now(connection: sa.Connection) -> float:
    """The database's own time, in seconds since the epoch: the one clock that all nodes share."""
    if connection.dialect.name == "sqlite":
        expression: Any = sa.text("(julianday('now') - 2440587.5) * 86400.0")
    else:
        expression = sa.text("extract(epoch from clock_timestamp())::float8")
    return float(connection.execute(sa.select(expression)).scalar_one())


def unavailable(error: BaseException | None = None) -> WarmlineError:
    """STORAGE_UNAVAILABLE, by a sentence that names no host and no path."""
    full = "full" in str(getattr(error, "orig", error) or "").lower() or (
        isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT)
    )
    why = "The disk of the store is full." if full else "The store cannot be used at the moment."
    return WarmlineError(Reason.STORAGE_UNAVAILABLE, why, retry_after=_RETRY_AFTER)


async def in_thread(pool: ThreadPoolExecutor, run: Callable[[], T], timeout: float) -> T:
    """Run what blocks. Raises STORAGE_UNAVAILABLE for its OSError, and after `timeout` seconds."""
    return await _bounded(asyncio.get_running_loop().run_in_executor(pool, run), timeout)


async def _bounded(work: Awaitable[T], timeout: float) -> T:
    try:
        async with asyncio.timeout(timeout):
            return await work
    except (sa.exc.DBAPIError, sa.exc.TimeoutError, sqlite3.Error, OSError) as error:
        # A TimeoutError is an OSError.
        if _refused(error):
            raise
        raise unavailable(error) from error


def _refused(error: Exception) -> bool:
    """Whether it is what was to be stored that is at fault: another try would do no better."""
    code = getattr(getattr(error, "orig", None), "sqlstate", None)
    return isinstance(error, _REFUSALS) or str(code).startswith(_DATA_EXCEPTION)


def _sqlite_engine(path: Path, *, read_only: bool) -> sa.Engine:
    engine = sa.create_engine(
        sa.URL.create("sqlite", database=str(path)),
        # What callers say is no business of a log's.
        hide_parameters=True,
        poolclass=QueuePool if read_only else StaticPool,
        connect_args={"check_same_thread": False, "timeout": _CONNECT_TIMEOUT},
        **({"pool_size": _READERS, "max_overflow": 0} if read_only else {}),
    )
    pragmas = ["foreign_keys=ON", "trusted_schema=OFF"]
    if read_only:
        pragmas += ["query_only=ON", "wal_autocheckpoint=0"]
    else:
        pragmas += [
            f"page_size={_PAGE_SIZE}",
            "journal_mode=WAL",
            "synchronous=FULL",
            f"wal_autocheckpoint={_CHECKPOINT_BYTES // _PAGE_SIZE}",
        ]

    @sa.event.listens_for(engine, "connect")
    def prepare(connection: sqlite3.Connection, _: object) -> None:
        # Transactions begin where SQLAlchemy says so, not where the driver thinks so.
        connection.isolation_level = None
        for pragma in pragmas:
            connection.execute(f"PRAGMA {pragma}")

    if read_only:
        sa.event.listen(engine, "begin", lambda each: each.exec_driver_sql("BEGIN"))
    return engine
