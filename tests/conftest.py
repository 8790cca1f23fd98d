"""Holds for every test: nothing is left behind, nothing blocks the loop, no skip hides a lack."""

import asyncio
import inspect
import os
import shutil
import signal
import sys
import tempfile
from collections.abc import AsyncIterator, Callable, Generator, Iterator, Mapping
from pathlib import Path
from typing import TypeVar

import blockbuster
import grpc
import hypothesis
import leaks
import pytest
from probing import probe_once
from virtual_time import VirtualTimeLoop
from watching import EachLoopsOwn

# Fixtures for any test that asks: servers of the run's own.
pytest_plugins = ["postgres", "redis_server", "s3", "stores"]

Report = TypeVar("Report", pytest.TestReport, pytest.CollectReport)
# Answered from the kernel's own memory within microseconds; a thread would take longer.
_QUICK = (
    "os.getcwd",
    "os.stat",
    "os.mkdir",
    "os.readlink",
    "os.path.islink",
    "os.path.abspath",
)


def pytest_configure() -> None:
    """Prepare this process before any test runs."""
    # How fast a shared machine is at this moment is no property of the code.
    quiet = hypothesis.HealthCheck.too_slow
    hypothesis.settings.register_profile("shared", deadline=None, suppress_health_check=[quiet])
    hypothesis.settings.load_profile("shared")
    # Ignored where the run was begun in the background, and then by every command that is tried here.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    leaks.adopt_orphans()
    # Held for the whole run: the last channel to go would wait for gRPC's thread, on the loop.
    grpc.aio.init_grpc_aio()
    if sys.version_info < (3, 12):
        # The default watcher takes a thread for each child.
        asyncio.set_child_watcher(EachLoopsOwn())


def pytest_asyncio_loop_factories(
    item: pytest.Item,
) -> Mapping[str, Callable[[], asyncio.AbstractEventLoop]]:
    """The stock loop, or that of virtual time for tests that are marked so."""
    if item.get_closest_marker("virtual_time"):
        return {"virtual": VirtualTimeLoop}
    return {"stock": asyncio.new_event_loop}


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """In CI a skipped test fails."""
    return _no_skip((yield))


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report() -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
    """In CI a skipped module fails."""
    return _no_skip((yield))


def _no_skip(report: Report) -> Report:
    if report.skipped and os.environ.get("CI") == "true" and not hasattr(report, "wasxfail"):
        report.outcome = "failed"
        report.longrepr = f"skipped, which CI does not allow: {report.longrepr}"
    return report


@pytest.fixture(scope="session", autouse=True)
def nothing_blocks_the_loop() -> Iterator[None]:
    """A call from the service that can block, made on the loop's thread, raises BlockingError."""
    guard = blockbuster.BlockBuster(
        scanned_modules=["warmline_service"],
        # Have a thread and a loop of their own, for nothing else.
        excluded_modules=[
            "warmline_service.store._apart",
            "warmline_service.store._migrate",
            "warmline_service.store.migrations",
        ],
    )
    for name in _QUICK:
        guard.functions.pop(name)
    # A process is started by the loop's own thread, as asyncio does it: it waits for the exec.
    guard.functions["os.read"].can_block_in("warmline_service/worker/_child.py", "spawn")
    guard.activate()
    yield
    guard.deactivate()


@pytest.fixture(scope="session", autouse=True)
def the_cli_is_probed_once() -> Iterator[None]:
    """Services in this process share what was found out; `warmline serve` still finds it out itself."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("warmline_service.server.probe", probe_once)
        yield


@pytest.fixture(autouse=True)
def no_file_is_left(
    request: pytest.FixtureRequest,
    tmp_path_factory: pytest.TempPathFactory,
    monkeypatch: pytest.MonkeyPatch,
) -> Iterator[None]:
    """A test leaves nothing in TMPDIR, which is its own, and no socket or slot in `tmp_path`."""
    # pytest's own folder must not move below TMPDIR.
    tmp_path_factory.getbasetemp()
    own = request.getfixturevalue("tmp_path") if "tmp_path" in request.fixturenames else None
    # Short, because a socket's path has at most 107 bytes.
    root = Path(tempfile.mkdtemp(prefix="wl-", dir="/tmp"))
    monkeypatch.setenv("TMPDIR", str(root))
    monkeypatch.setattr(tempfile, "tempdir", str(root))
    yield
    left = leaks.entries_left(root) + (leaks.remains_of_slots(own) if own else [])
    shutil.rmtree(root)
    assert not left, f"left behind: {left}"


@pytest.fixture(autouse=True)
def no_child_is_left(request: pytest.FixtureRequest, no_file_is_left: None) -> Iterator[None]:
    """A test ends every process that it began; where a service is shared, the module does."""
    before = leaks.children()
    yield
    if request.node.get_closest_marker("shared_service") is None:
        left = leaks.children_left(before)
        assert not left, f"processes left behind: {left}"


@pytest.fixture(scope="module", autouse=True)
def no_child_outlives_its_module() -> Iterator[None]:
    """The same for what the tests of a module share."""
    before = leaks.children()
    yield
    left = leaks.children_left(before)
    assert not left, f"processes left behind: {left}"


@pytest.fixture
async def tasks_end() -> AsyncIterator[None]:
    """Every task that begins after this fixture has ended when the test and its fixtures have."""
    before = asyncio.all_tasks()
    yield
    left = await leaks.tasks_left(before)
    assert not left, f"tasks left behind: {left}"


@pytest.fixture(autouse=True)
def no_task_is_left(request: pytest.FixtureRequest, no_child_is_left: None) -> None:
    """An async test ends every task that it began."""
    if inspect.iscoroutinefunction(getattr(request, "function", None)):
        request.getfixturevalue("tasks_end")
