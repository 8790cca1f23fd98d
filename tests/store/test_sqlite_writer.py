"""Who waits for SQLite's writer is committed together, and fails alone."""

import asyncio
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from pathlib import Path
from typing import TypeVar

import pytest
import sqlalchemy as sa
from sqlalchemy.pool import StaticPool
from stores import TENANT, hold, opened, row, writer_of
from warmline_service.errors import WarmlineError
from warmline_service.store import Query, _sessions, _sqlite_writer
from warmline_service.store._sqlite_writer import SqliteWriter, raw

T = TypeVar("T")
Work = Callable[[sa.Connection], None]
_TIMEOUT = 20


class Bench:
    """A writer on a table of numbers, and what was said to its connection."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.said: list[str] = []
        self.engine = sa.create_engine(
            f"sqlite:///{path}", poolclass=StaticPool, connect_args={"check_same_thread": False}
        )
        sa.event.listen(self.engine, "connect", self._prepare)
        self.writer = SqliteWriter(self.engine)
        self.submit(statement("CREATE TABLE t (n INTEGER PRIMARY KEY)")).result(_TIMEOUT)
        self.said.clear()

    def _prepare(self, connection: sqlite3.Connection, _: object) -> None:
        connection.isolation_level = None
        connection.execute("PRAGMA journal_mode=WAL")
        connection.set_trace_callback(self.said.append)

    def submit(self, work: Callable[[sa.Connection], T]) -> Future[T]:
        """Have it done."""
        return self.writer.thread.submit(self.writer.enlist(work))

    @property
    def commits(self) -> int:
        """How often something was committed."""
        return self.said.count("COMMIT")

    def together(self, *works: Work) -> list[Future[None]]:
        """Let these come while the writer is at something else."""
        gate = hold(self.writer)
        futures = [self.submit(work) for work in works]
        gate.set()
        for future in futures:
            future.exception(_TIMEOUT)
        return futures

    def stored(self) -> set[int]:
        """What others see."""
        with sqlite3.connect(self.path) as connection:
            return {n for (n,) in connection.execute("SELECT n FROM t")}


@pytest.fixture
def bench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Bench]:
    """One that has made its table, and whose groups end only when nobody waits any more."""
    monkeypatch.setattr(_sqlite_writer, "_LONGEST", 60.0)
    made = Bench(tmp_path / "db")
    yield made
    made.writer.close()


def statement(text: str) -> Work:
    """Say this."""

    def work(connection: sa.Connection) -> None:
        raw(connection).execute(text)

    return work


def insert(number: int) -> Work:
    """Add a number."""
    return statement(f"INSERT INTO t VALUES ({number:d})")  # noqa: S608  # a number


def errors(futures: list[Future[None]]) -> list[type | None]:
    """Of what kind each one's error is."""
    found = [future.exception(_TIMEOUT) for future in futures]
    return [None if each is None else type(each) for each in found]


def among_others(bench: Bench, place: int, odd: Work) -> type | None:
    """Have this done in a group with three that are none the worse; of what kind its error is."""
    works = [insert(1), insert(2), insert(3)]
    works.insert(place, odd)
    found = errors(bench.together(*works))
    error = found.pop(place)
    assert found == [None] * 3
    assert bench.stored() == {1, 2, 3}
    return error


def test_those_that_wait_are_committed_together(bench: Bench) -> None:
    """One commit for all of them; each gets what its own work gives."""
    gate = hold(bench.writer)

    def added(number: int) -> Callable[[sa.Connection], int]:
        def work(connection: sa.Connection) -> int:
            insert(number)(connection)
            return number * 10

        return work

    futures = [bench.submit(added(number)) for number in range(5)]
    gate.set()
    assert [future.result(_TIMEOUT) for future in futures] == [0, 10, 20, 30, 40]
    assert bench.commits == 1
    assert bench.stored() == {0, 1, 2, 3, 4}


def test_one_that_comes_alone_needs_no_savepoint(bench: Bench) -> None:
    """And has a transaction of its own."""
    for number in (1, 2):
        bench.submit(insert(number)).result(_TIMEOUT)
    assert bench.commits == 2
    assert not any(said.startswith("SAVEPOINT") for said in bench.said)


@pytest.mark.parametrize("place", range(4))
def test_who_fails_is_undone_alone(bench: Bench, place: int) -> None:
    """Wherever in the group it is, with all that it had done before."""

    def fail(connection: sa.Connection) -> None:
        insert(90)(connection)
        raise ZeroDivisionError

    assert among_others(bench, place, fail) is ZeroDivisionError


def test_a_refused_row_is_its_sessions_own_matter(bench: Bench) -> None:
    """SQLite undoes the statement, and the writer the rest of its work."""

    def twice(connection: sa.Connection) -> None:
        insert(7)(connection)
        insert(1)(connection)

    found = errors(bench.together(insert(1), twice, insert(2)))
    assert found == [None, sqlite3.IntegrityError, None]
    assert bench.stored() == {1, 2}


@pytest.mark.parametrize("place", range(4))
def test_a_transaction_that_is_lost_is_done_again_one_by_one(bench: Bench, place: int) -> None:
    """As by SQLite itself where the disk is full: whoever was in it already does not hear of that."""

    def lose(connection: sa.Connection) -> None:
        insert(90)(connection)
        raw(connection).execute("ROLLBACK")
        raise ZeroDivisionError

    assert among_others(bench, place, lose) is ZeroDivisionError


def test_what_no_commit_takes_fails_alone(bench: Bench) -> None:
    """A constraint that is looked at last stops the commit; the others get one of their own."""

    def keep_keys() -> None:
        with bench.engine.connect() as connection:
            raw(connection).execute("PRAGMA foreign_keys=ON")

    bench.submit(
        statement("CREATE TABLE u (n INTEGER REFERENCES t DEFERRABLE INITIALLY DEFERRED)")
    ).result(_TIMEOUT)
    bench.writer.thread.submit(keep_keys).result(_TIMEOUT)

    found = errors(bench.together(insert(1), statement("INSERT INTO u VALUES (9)"), insert(2)))
    assert found == [None, sqlite3.IntegrityError, None]
    assert bench.stored() == {1, 2}


def test_a_transaction_that_its_first_work_ended_is_not_gone_on_with(bench: Bench) -> None:
    """Nothing of that one is left, it is told so, and those behind it are done once."""

    def end(connection: sa.Connection) -> None:
        insert(1)(connection)
        raw(connection).execute("ROLLBACK")

    assert errors(bench.together(end)) == [sqlite3.OperationalError]
    assert errors(bench.together(end, insert(2), insert(3))) == [
        sqlite3.OperationalError,
        None,
        None,
    ]
    assert errors(bench.together(insert(4), end, insert(5))) == [
        None,
        sqlite3.OperationalError,
        None,
    ]
    assert bench.stored() == {2, 3, 4, 5}


@pytest.mark.parametrize("place", range(4))
@pytest.mark.parametrize("by", ["driver", "SQLAlchemy"])
def test_a_connection_that_is_lost_is_replaced(bench: Bench, place: int, by: str) -> None:
    """Whoever noticed it: those before are done again, and those behind find another one."""

    def lose(connection: sa.Connection) -> None:
        driver = raw(connection)
        driver.close()
        if by == "driver":
            driver.execute("SELECT 1")
        connection.execute(sa.text("SELECT 1"))

    lost = among_others(bench, place, lose)
    assert lost is not None
    assert issubclass(lost, sqlite3.Error | sa.exc.SQLAlchemyError)
    bench.submit(insert(4)).result(_TIMEOUT)
    assert bench.stored() == {1, 2, 3, 4}


def test_a_refusal_that_rests_on_what_was_lost_is_taken_back(bench: Bench) -> None:
    """It was made within the transaction: done again, it is none."""

    def refuse(connection: sa.Connection) -> None:
        if raw(connection).execute("SELECT * FROM t WHERE n = 1").fetchone():
            raise ZeroDivisionError
        insert(2)(connection)

    def once(connection: sa.Connection) -> None:
        if tries:
            raise ArithmeticError
        tries.append(1)
        insert(1)(connection)

    def lose(connection: sa.Connection) -> None:
        raw(connection).execute("ROLLBACK")

    tries: list[int] = []
    found = errors(bench.together(once, refuse, lose))
    assert found == [ArithmeticError, None, sqlite3.OperationalError]
    assert bench.stored() == {2}


def test_who_has_given_up_waiting_is_left_out(bench: Bench) -> None:
    """Before its turn nothing is done for it."""
    gate = hold(bench.writer)
    jobs = [bench.writer.enlist(insert(number)) for number in range(3)]
    jobs[1].wanted = False
    futures = [bench.writer.thread.submit(jobs[each]) for each in (0, 2)]
    gate.set()
    assert [future.result(_TIMEOUT) for future in futures] == [None, None]
    assert bench.stored() == {0, 2}


def test_a_group_does_not_keep_its_first_waiting_for_long(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Works that take long are not gathered: each of these is as long as a group may be."""
    monkeypatch.setattr(_sqlite_writer, "_LONGEST", 0.005)

    def slowly(number: int) -> Work:
        def work(connection: sa.Connection) -> None:
            insert(number)(connection)
            end = time.monotonic() + 0.006
            while time.monotonic() < end:
                pass

        return work

    bench.together(*map(slowly, range(4)))
    assert bench.commits == 4
    assert bench.stored() == {0, 1, 2, 3}


def test_closing_does_what_waits_first(tmp_path: Path) -> None:
    """Nobody waits for ever."""
    bench = Bench(tmp_path / "db")
    gate = hold(bench.writer)
    futures = [bench.submit(insert(number)) for number in range(3)]
    closing = threading.Thread(target=bench.writer.close)
    closing.start()
    gate.set()
    closing.join(_TIMEOUT)
    assert not closing.is_alive()
    assert all(future.done() for future in futures)
    assert bench.stored() == {0, 1, 2}


async def test_who_is_cancelled_while_it_waits_for_the_writer_has_done_nothing(
    tmp_path: Path,
) -> None:
    """Nor has who had no more time."""
    async with opened("", tmp_path) as store:
        gate = hold(writer_of(store))
        made = [row() for _ in range(3)]
        kept = asyncio.create_task(store.create(made[0], None, 10))
        given_up = asyncio.create_task(store.create(made[1], None, 10))
        late = store._database.write(lambda c: _sessions.create(c, made[2], None, 10), 0.01)
        with pytest.raises(WarmlineError, match="STORAGE_UNAVAILABLE"):
            await late
        given_up.cancel()
        await asyncio.wait({given_up})
        gate.set()
        assert await kept == made[0].id
        assert [each.id for each in await store.sessions(TENANT, Query(limit=10))] == [made[0].id]
