"""An S3 of the tests' own: one server for the run, in a process of its own, a bucket for each test."""

import http.client
import itertools
import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import IO, Any

import leaks
import pytest

_START_TIMEOUT = 60.0
_TIMEOUT = 60.0
_DIES_WITH_US = ("setpriv", "--pdeathsig", "KILL", "--")
_RUNNING = re.compile(r"Running on http://127\.0\.0\.1:(\d+)")


@dataclass(frozen=True)
class Bucket:
    """An empty bucket: its URL, and the options with which fsspec reaches it."""

    url: str
    options: dict[str, Any]


class S3Server:
    """A running server on a port of this machine."""

    def __init__(self, port: int, pid: int) -> None:
        self.port = port
        self.pid = pid
        self._numbers = itertools.count(1)

    def bucket(self) -> Bucket:
        """A bucket that nobody has used, with a prefix in it."""
        name = f"bucket-{next(self._numbers)}"
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=_TIMEOUT)
        connection.request("PUT", f"/{name}")
        status = connection.getresponse().status
        connection.close()
        assert status == http.HTTPStatus.OK
        return Bucket(f"s3://{name}/some/prefix", self.options())

    def options(self) -> dict[str, Any]:
        """Where it is, and keys that open nothing."""
        return {
            "endpoint_url": f"http://127.0.0.1:{self.port}",
            "key": "test",
            "secret": "test",
            "client_kwargs": {"region_name": "us-east-1"},
        }


class _Port:
    """The port, as soon as the server's output names it; the rest of the output is read away."""

    def __init__(self, output: IO[str]) -> None:
        self._output = output
        self._settled = threading.Event()
        self._lines: list[str] = []
        self._port: int | None = None
        self._thread = threading.Thread(target=self._read, name="s3-output", daemon=True)
        self._thread.start()

    def _read(self) -> None:
        for line in self._output:
            if self._port is None:
                self._lines.append(line)
                found = _RUNNING.search(line)
                if found:
                    self._port = int(found[1])
                    self._settled.set()
        self._settled.set()

    def wait(self) -> int:
        """The port; AssertionError when the server ended or is late."""
        self._settled.wait(_START_TIMEOUT)
        assert self._port, f"the S3 server did not start:\n{''.join(self._lines)}"
        return self._port

    def close(self) -> None:
        """Wait for the end of the output."""
        self._thread.join(_TIMEOUT)
        self._output.close()


@contextmanager
def running_s3() -> Iterator[S3Server]:
    """A server of its own on a free port; it dies with this process."""
    # The server looks at the environment for AWS's own settings too; it gets none.
    server = (sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", "0")
    process = subprocess.Popen(
        [*_DIES_WITH_US, *server],
        env={"PATH": os.defpath, "PYTHONUNBUFFERED": "1"},
        cwd="/",
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert process.stdout
    port = _Port(process.stdout)
    try:
        yield S3Server(port.wait(), process.pid)
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait(_TIMEOUT)
        port.close()


@pytest.fixture(scope="session")
def s3_server() -> Iterator[S3Server]:
    """The run's own S3; it starts when the first test asks for it."""
    with running_s3() as server:
        leaks.keep_for_the_run(server.pid)
        yield server


@pytest.fixture
def s3(s3_server: S3Server) -> Bucket:
    """An empty bucket that is this test's own."""
    return s3_server.bucket()
