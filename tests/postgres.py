"""A PostgreSQL of the tests' own: one server for the run, a database of its own for each test."""

import itertools
import os
import pwd
import shutil
import signal
import subprocess
import tempfile
import threading
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO
from urllib.parse import urlencode

import leaks
import pytest

_DEBIAN = Path("/usr/lib/postgresql")
_START_TIMEOUT = 60.0
_COMMAND_TIMEOUT = 60.0
_STOP_TIMEOUT = 60.0
_USER = "warmline"
_PORT = "5432"  # Only the name of the socket; nothing listens on a port.
# Nothing has to survive a power cut. Without background workers that come and go by themselves, a
# process that appears during a test is that test's.
_OPTIONS = {
    "listen_addresses": "",
    "port": _PORT,
    "fsync": "off",
    "full_page_writes": "off",
    "synchronous_commit": "off",
    "wal_level": "minimal",
    "max_wal_senders": "0",
    "max_connections": "60",
    "shared_buffers": "32MB",
    "autovacuum": "off",
    "max_logical_replication_workers": "0",
    # In the data directory, so that a killed server leaves nothing elsewhere.
    "dynamic_shared_memory_type": "mmap",
    "jit": "off",
}
# The environment of the server and its tools: no PG* variable of the caller's counts.
_ENVIRONMENT = {"PATH": os.defpath, "LC_ALL": "C"}


class PostgresMissingError(RuntimeError):
    """There are no server binaries on this machine."""

    def __init__(self) -> None:
        super().__init__(
            "PostgreSQL's server binaries are neither below /usr/lib/postgresql nor on PATH. Run "
            "`make servers` (as root it installs Debian's package), or install `postgresql`."
        )


def find_binaries() -> Path:
    """The folder with the newest `postgres` and its tools."""

    def version(folder: Path) -> float:
        return float(folder.parent.name)

    debian = sorted(_DEBIAN.glob("[0-9]*/bin"), key=version, reverse=True)
    on_path = shutil.which("postgres")
    # Resolved, because a link stands alone: its target has `initdb` and `psql` beside it.
    candidates = [*debian, *([Path(on_path).resolve().parent] if on_path else [])]
    for folder in candidates:
        if all((folder / name).is_file() for name in ("postgres", "initdb", "psql")):
            return folder
    raise PostgresMissingError


def _account() -> pwd.struct_passwd | None:
    """Whom the server runs as where this is root, which it refuses; None: as we are."""
    if os.geteuid() != 0:
        return None
    known = {entry.pw_name: entry for entry in pwd.getpwall()}
    return known.get("postgres") or known["nobody"]


def _guarded(account: pwd.struct_passwd | None) -> list[str]:
    """What goes before a command: it dies with us, by the signal that also ends its processes."""
    command = ["setpriv", "--pdeathsig", "QUIT"]
    if account:
        command += [f"--reuid={account.pw_uid}", f"--regid={account.pw_gid}", "--clear-groups"]
    return [*command, "--"]


class _Log:
    """The server's standard error: its last lines, and the moment when it is ready."""

    def __init__(self, stream: IO[str]) -> None:
        self._stream = stream
        self._lines: deque[str] = deque(maxlen=100)
        self._settled = threading.Event()
        self._ready = False
        self._thread = threading.Thread(target=self._read, name="postgres-log", daemon=True)
        self._thread.start()

    def _read(self) -> None:
        for line in self._stream:
            self._lines.append(line)
            if "database system is ready to accept connections" in line:
                self._ready = True
                self._settled.set()
        self._settled.set()

    def wait_until_ready(self) -> None:
        """Return when the server takes connections; AssertionError when it ended or is late."""
        self._settled.wait(_START_TIMEOUT)
        assert self._ready, f"PostgreSQL did not start:\n{self}"

    def close(self) -> None:
        """Wait for the end of the stream."""
        self._thread.join(_STOP_TIMEOUT)
        self._stream.close()

    def __str__(self) -> str:
        return "".join(self._lines)


def _run(command: list[str], timeout: float) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command, cwd="/", env=_ENVIRONMENT, capture_output=True, text=True, timeout=timeout
    )


class PostgresServer:
    """A running server; only this user can reach it, by a socket in a directory of its own."""

    def __init__(self, binaries: Path, root: Path, pid: int) -> None:
        self.pid = pid
        self._binaries = binaries
        self._root = root
        self._numbers = itertools.count(1)
        self._templates: set[str] = set()

    def url(self, database: str) -> str:
        """SQLAlchemy's URL of a database."""
        where = urlencode({"host": str(self._root), "port": _PORT})
        return f"postgresql+asyncpg://{_USER}@/{database}?{where}"

    def sql(self, statement: str, database: str = "postgres") -> str:
        """What `psql` prints for one statement, without a heading."""
        command = [str(self._binaries / "psql"), "-XqAt", "-v", "ON_ERROR_STOP=1"]
        command += ["-h", str(self._root), "-p", _PORT, "-U", _USER, "-d", database]
        done = _run([*command, "-c", statement], _COMMAND_TIMEOUT)
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()

    def template(self, name: str, prepare: Callable[[str], None]) -> str:
        """A database to copy: made once, by giving `prepare` the URL of an empty one."""
        if name not in self._templates:
            self._create(name, "template0")
            prepare(self.url(name))
            self._templates.add(name)
        return name

    @contextmanager
    def database(self, template: str = "template0") -> Iterator[str]:
        """The URL of a fresh database; at the end no connection to it may be left."""
        name = f"test_{next(self._numbers)}"
        self._create(name, template)
        try:
            yield self.url(name)
        finally:
            self._drop(name)

    def _create(self, name: str, template: str) -> None:
        self.sql(f'CREATE DATABASE "{name}" TEMPLATE "{template}" STRATEGY file_copy')

    def _drop(self, name: str) -> None:
        # It waits 5 seconds for connections that are closing.
        try:
            self.sql(f'DROP DATABASE "{name}"')
        except AssertionError:
            self.sql(f'DROP DATABASE "{name}" WITH (FORCE)')
            raise


def _make_cluster(guarded: list[str], binaries: Path, data: Path) -> None:
    command = [*guarded, str(binaries / "initdb"), "--pgdata", str(data)]
    # Trusts whoever reaches the socket, whose directory only this user can enter.
    command += ["--username", _USER, "--auth", "trust", "--no-sync", "--encoding", "UTF8"]
    command += ["--locale", "C", "--no-instructions"]
    done = _run(command, _START_TIMEOUT)
    assert done.returncode == 0, f"initdb failed:\n{done.stderr}"


@contextmanager
def _running(
    guarded: list[str], binaries: Path, root: Path, options: Mapping[str, str]
) -> Iterator[int]:
    command = [*guarded, str(binaries / "postgres"), "-D", str(root / "data"), "-k", str(root)]
    command += [f"--{name}={value}" for name, value in options.items()]
    process = subprocess.Popen(
        command,
        cwd="/",
        env=_ENVIRONMENT,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stderr
    log = _Log(process.stderr)
    try:
        log.wait_until_ready()
        yield process.pid
    finally:
        _stop(process)
        log.close()


def _stop(process: subprocess.Popen[str]) -> None:
    process.send_signal(signal.SIGQUIT)
    try:
        process.wait(_STOP_TIMEOUT)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait(_STOP_TIMEOUT)
        raise


class PostgresCluster:
    """A directory with databases; its server may be started again and again."""

    def __init__(self, binaries: Path, root: Path, guarded: list[str]) -> None:
        self.root = root
        self._binaries = binaries
        self._guarded = guarded

    @contextmanager
    def running(self, **options: str) -> Iterator[PostgresServer]:
        """Its server; `options` are settings of it, in place of the tests' own.

        It dies with the thread that starts it.
        """
        settings = _OPTIONS | options
        with _running(self._guarded, self._binaries, self.root, settings) as pid:
            yield PostgresServer(self._binaries, self.root, pid)


@contextmanager
def postgres_cluster() -> Iterator[PostgresCluster]:
    """A cluster of its own in a temporary directory, without a server; when it ends nothing is left."""
    binaries = find_binaries()
    # Not in TMPDIR, which is one test's; short, because a socket's path has at most 107 bytes.
    root = Path(tempfile.mkdtemp(prefix="wl-pg-", dir="/tmp"))
    try:
        account = _account()
        if account:
            os.chown(root, account.pw_uid, account.pw_gid)
        guarded = _guarded(account)
        _make_cluster(guarded, binaries, root / "data")
        yield PostgresCluster(binaries, root, guarded)
    finally:
        shutil.rmtree(root)


@contextmanager
def running_postgres() -> Iterator[PostgresServer]:
    """A server of its own in a temporary directory; when it ends nothing is left."""
    with postgres_cluster() as cluster, cluster.running() as server:
        yield server


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[PostgresServer]:
    """The run's own PostgreSQL; it starts when the first test asks for it."""
    with running_postgres() as server:
        leaks.keep_for_the_run(server.pid)
        yield server


@pytest.fixture
def postgres_url(postgres_server: PostgresServer) -> Iterator[str]:
    """SQLAlchemy's URL of an empty database that is this test's own."""
    with postgres_server.database() as url:
        yield url
