"""A Redis of the run's own: Debian's `redis-tools` holds its server under another name."""

from __future__ import annotations

import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import leaks
import pytest
import redis

_BINARY = "/usr/bin/redis-check-rdb"
_TIMEOUT = 60.0


class RedisServer:
    """A server at a unix socket."""

    def __init__(self, process: subprocess.Popen[bytes], socket: Path) -> None:
        self.pid = process.pid
        self.url = f"redis+unix://{socket}"
        self._process = process

    def stop(self) -> None:
        """Let it answer nobody, for a while."""
        self._process.send_signal(signal.SIGSTOP)

    def go_on(self) -> None:
        """Let it answer again."""
        self._process.send_signal(signal.SIGCONT)


@contextmanager
def running_redis() -> Iterator[RedisServer]:
    """A server in a temporary directory; when it ends nothing is left."""
    # Not in TMPDIR, which is one test's; short, because a socket's path has at most 107 bytes.
    root = Path(tempfile.mkdtemp(prefix="wl-redis-", dir="/tmp"))
    socket = root / "sock"
    options = ("--port", "0", "--unixsocket", str(socket), "--save", "", "--dir", str(root))
    # It is the server where it is called so.
    process = subprocess.Popen(
        ["/usr/bin/redis-server", *options], executable=_BINARY, stdout=subprocess.DEVNULL
    )
    try:
        _await(socket)
        yield RedisServer(process, socket)
    finally:
        process.kill()
        process.wait()
        shutil.rmtree(root)


def _await(socket: Path) -> None:
    until = time.monotonic() + _TIMEOUT
    while True:
        try:
            with redis.Redis(unix_socket_path=str(socket)) as client:
                client.ping()
                return
        except redis.ConnectionError:
            if time.monotonic() > until:
                raise
            time.sleep(0.02)


@pytest.fixture(scope="session")
def redis_of_the_run() -> Iterator[RedisServer]:
    """It starts when the first test asks for it."""
    with running_redis() as server:
        leaks.keep_for_the_run(server.pid)
        yield server


@pytest.fixture
def redis_server(redis_of_the_run: RedisServer) -> Iterator[RedisServer]:
    """The run's Redis, empty."""
    with redis.Redis.from_url(redis_of_the_run.url.replace("redis+unix", "unix")) as client:
        client.flushall()
    yield redis_of_the_run
    redis_of_the_run.go_on()
