"""The tests' own PostgreSQL: apart from any other, quick, and gone when the run is."""

import asyncio
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import leaks
import postgres
import psutil
import pytest
from postgres import PostgresServer, running_postgres
from sqlalchemy import text
from sqlalchemy.ext.asyncio import create_async_engine


async def _ask(url: str, statement: str) -> object:
    engine = create_async_engine(url)
    try:
        async with engine.begin() as connection:
            result = await connection.execute(text(statement))
            return result.scalar() if result.returns_rows else None
    finally:
        await engine.dispose()


async def test_each_test_has_an_empty_database(postgres_url: str) -> None:
    """SQLAlchemy reaches it by the URL, and it holds no table."""
    tables = "select count(*) from pg_tables where schemaname = 'public'"
    assert await _ask(postgres_url, tables) == 0
    await _ask(postgres_url, "create table seen (id int)")
    assert await _ask(postgres_url, tables) == 1


async def test_two_databases_of_one_template_are_apart(postgres_server: PostgresServer) -> None:
    """A template is made once; what is written to a copy is in no other."""
    made = []

    def prepare(url: str) -> None:
        made.append(url)
        name = url.split("/")[-1].split("?")[0]
        postgres_server.sql("create table t (id int)", database=name)

    for _ in range(2):
        template = postgres_server.template("harness", prepare)
        with postgres_server.database(template) as url:
            await _ask(url, "insert into t values (1)")
            assert await _ask(url, "select count(*) from t") == 1
    assert len(made) == 1


async def test_a_connection_that_is_left_fails_its_test(postgres_server: PostgresServer) -> None:
    """A pool that nobody closes is found when its database goes."""
    database = postgres_server.database()
    engine = create_async_engine(database.__enter__())
    async with engine.connect():
        with pytest.raises(AssertionError, match="being accessed by other users"):
            await asyncio.to_thread(database.__exit__, None, None, None)
    await engine.dispose()


def test_no_other_server_is_needed_or_touched(postgres_server: PostgresServer) -> None:
    """It listens on no port, and its files are in a directory that only its user can enter."""
    assert postgres_server.sql("show listen_addresses") == ""
    folder = Path(postgres_server.sql("show unix_socket_directories"))
    assert folder.stat().st_mode & 0o777 == 0o700
    assert Path(postgres_server.sql("show data_directory")).parent == folder


def test_a_server_leaves_nothing_when_it_ends() -> None:
    """No process, no directory."""
    before = leaks.children()
    with running_postgres() as server:
        folder = Path(server.sql("show data_directory")).parent
    assert not folder.exists()
    assert not leaks.children() - before


def test_a_server_dies_with_its_run() -> None:
    """A run that is killed leaves no server behind."""
    program = (
        "import postgres, sys\n"
        "with postgres.running_postgres() as server:\n"
        "    print(server.sql('show data_directory'), flush=True)\n"
        "    sys.stdin.read()\n"
    )
    run = subprocess.Popen(
        [sys.executable, "-c", program],
        cwd=Path(postgres.__file__).parent,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    with run:
        assert run.stdout
        folder = Path(run.stdout.readline().strip()).parent
        tree = psutil.Process(run.pid).children(recursive=True)
        assert tree
        run.send_signal(signal.SIGKILL)
    _, alive = psutil.wait_procs(tree, timeout=10)
    shutil.rmtree(folder)
    assert not alive


def test_missing_binaries_are_a_failure_that_says_what_to_do(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """No skip: the message names the command that helps."""
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(postgres, "_DEBIAN", tmp_path)
    with pytest.raises(postgres.PostgresMissingError, match="make servers"):
        postgres.find_binaries()
