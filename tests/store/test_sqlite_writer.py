"""Who waits for SQLite's writer is committed together, and fails alone."""

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

    def hold(self) -> threading.Event:
        """Keep the writer from all of it until this is set."""
        gate = threading.Event()
        self.writer.thread.submit(gate.wait, _TIMEOUT)
        return gate

    @property
    def commits(self) -> int:
        """How often something was committed."""
        return self.said.count("COMMIT")

    def together(self, *works: Work) -> list[Future[None]]:
        """Let these come while the writer is at something else."""
        gate = self.hold()
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
def bench(tmp_path: Path) -> Iterator[Bench]:
    """One that has made its table."""
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


def test_those_that_wait_are_committed_together(bench: Bench) -> None:
    """One commit for all of them; each gets what its own work gives."""
    gate = bench.hold()

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

    works = [insert(1), insert(2), insert(3)]
    works.insert(place, fail)
    found = errors(bench.together(*works))
    assert found.pop(place) is ZeroDivisionError
    assert found == [None] * 3
    assert bench.stored() == {1, 2, 3}


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

    works = [insert(1), insert(2), insert(3)]
    works.insert(place, lose)
    found = errors(bench.together(*works))
    assert found.pop(place) is ZeroDivisionError
    assert found == [None] * 3
    assert bench.stored() == {1, 2, 3}


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


def test_a_commit_that_fails_for_one_alone_is_told_to_it(bench: Bench) -> None:
    """Nothing of it is left, and the next one is none the worse."""

    def end(connection: sa.Connection) -> None:
        insert(1)(connection)
        raw(connection).execute("ROLLBACK")

    assert errors(bench.together(end)) == [sqlite3.OperationalError]
    bench.submit(insert(2)).result(_TIMEOUT)
    assert bench.stored() == {2}


def test_who_has_given_up_waiting_is_left_out(bench: Bench) -> None:
    """Before its turn nothing is done for it."""
    gate = bench.hold()
    jobs = [bench.writer.enlist(insert(number)) for number in range(3)]
    jobs[1].wanted = False
    futures = [bench.writer.thread.submit(jobs[each]) for each in (0, 2)]
    gate.set()
    assert [future.result(_TIMEOUT) for future in futures] == [None, None]
    assert bench.stored() == {0, 2}


def test_a_group_does_not_keep_its_first_waiting_for_long(bench: Bench) -> None:
    """Works that take long are not gathered: each of these is as long as a group may be."""

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
    gate = bench.hold()
    futures = [bench.submit(insert(number)) for number in range(3)]
    closing = threading.Thread(target=bench.writer.close)
    closing.start()
    gate.set()
    closing.join(_TIMEOUT)
    assert not closing.is_alive()
    assert all(future.done() for future in futures)
    assert bench.stored() == {0, 1, 2}
