"""However it ends, nothing of a process is left: no tree, no slot, no task."""

import asyncio
import os
import signal
import sys
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

import fake_cli
import pytest
from cli_turns import begin, crash, turn
from warmline_service.worker import CliProcess, Slots, SlotsInUse
from warmline_service.worker._guard import kill_marked
from warmline_service.worker._stop import stop_by_ladder
from warmline_service.worker._usage import tree_memory

Start = Callable[..., Awaitable[CliProcess]]
NO_NAMESPACE = ("setpriv", "--pdeathsig", "KILL", "--")
GUARDS = pytest.mark.parametrize("guard", [None, NO_NAMESPACE, ()], ids=["best", "setpriv", "none"])


def marked(mark: str) -> list[int]:
    """The processes that carry a slot's mark."""
    found = []
    for entry in Path("/proc").iterdir():
        try:
            if f"WARMLINE_SLOT={mark}".encode() in (entry / "environ").read_bytes().split(b"\0"):
                found.append(int(entry.name))
        except OSError:
            continue
    return found


class Ladder:
    """A process that goes at the rung it is told."""

    def __init__(self, goes_at: str) -> None:
        self.goes_at = goes_at
        self.steps: list[str] = []

    def close_stdin(self) -> None:
        """The first rung."""
        self.steps.append("stdin")

    def signal_group(self, number: signal.Signals) -> None:
        """The other rungs."""
        self.steps.append(number.name)

    async def gone(self, timeout: float) -> bool:
        """Whether it went."""
        assert timeout == 2.0
        return self.steps[-1] == self.goes_at


@pytest.mark.parametrize(
    ("goes_at", "rung", "steps"),
    [("stdin", "stdin", 1), ("SIGTERM", "term", 2), ("SIGKILL", "kill", 3), ("never", None, 3)],
)
async def test_the_ladder_goes_no_further_than_it_must(
    goes_at: str, rung: str | None, steps: int
) -> None:
    """Close stdin, TERM, KILL, each with the same wait, until it is gone."""
    child = Ladder(goes_at)
    assert await stop_by_ladder(child, 2.0) == rung
    assert child.steps == ["stdin", "SIGTERM", "SIGKILL"][:steps]


@GUARDS
async def test_an_idle_process_ends_at_the_end_of_its_input(
    start: Start, guard: tuple[str, ...] | None
) -> None:
    """The first rung is enough, its exit is clean, and its slot is gone."""
    process = await start(guard=guard)
    await process.stop()
    end = await process.exited
    assert (end.code, end.signal, end.cause) == (0, None, "was stopped")
    assert not process.slot.root.exists()


@GUARDS
async def test_term_reaches_the_cli(start: Start, guard: tuple[str, ...] | None) -> None:
    """The signal passes what stands between the service and the CLI, and so does the code."""
    process = await start(guard=guard, ignore_eof=True, cli={"stop_timeout": 0.3})
    await process.stop()
    assert (await process.exited).code == 143


@GUARDS
async def test_what_ignores_term_is_killed(start: Start, guard: tuple[str, ...] | None) -> None:
    """The last rung ends anything."""
    process = await start(guard=guard, ignore_eof=True, ignore_term=True, cli={"stop_timeout": 0.2})
    await process.stop()
    assert (await process.exited).signal == signal.SIGKILL
    assert not marked(process.id)


@GUARDS
@pytest.mark.parametrize("end", ["stop", "die", "kill"])
async def test_a_daemon_does_not_outlive_its_process(
    start: Start, guard: tuple[str, ...] | None, end: str
) -> None:
    """What forked twice into a session of its own is gone too, however the process ended."""
    process = await start(guard=guard)
    assert (await turn(process, "!orphan")).result == "left one behind"
    assert len(marked(process.id)) >= 2
    if end != "stop":
        await crash(process, f"!{end}")
    await process.stop()
    assert not marked(process.id)
    assert not process.slot.root.exists()


async def test_stop_may_be_called_by_many_and_again(start: Start) -> None:
    """All wait for the same end."""
    process = await start()
    await asyncio.gather(process.stop(), process.stop())
    await process.stop()


async def test_stopping_goes_on_when_its_caller_is_cancelled(start: Start) -> None:
    """A cancelled caller leaves no process behind."""
    process = await start(ignore_eof=True, cli={"stop_timeout": 0.2})
    stopping = asyncio.create_task(process.stop())
    await asyncio.sleep(0)
    stopping.cancel()
    with pytest.raises(asyncio.CancelledError):
        await stopping
    await process.stop()
    assert not marked(process.id)


async def test_a_busy_process_can_be_stopped(start: Start) -> None:
    """A turn that would never end does not hold the stop up beyond its rungs."""
    process = await start(cli={"stop_timeout": 0.2})
    ear = await begin(process, "!deaf")
    await asyncio.wait_for(ear.first_text, 60)
    await asyncio.wait_for(process.stop(), 5)
    assert not process.alive


async def test_an_abandoned_process_clears_up_after_itself(start: Start) -> None:
    """Where the loop ends before anybody called `stop`, nothing is left all the same."""
    process = await start(ignore_eof=True, ignore_term=True)
    assert (await turn(process, "!orphan")).result == "left one behind"
    process._life_of_child.cancel()
    await asyncio.wait({process._life_of_child}, timeout=5)
    assert (await process.exited).cause == "was abandoned"
    assert not marked(process.id)
    assert not process.slot.root.exists()


PARENT = """
import asyncio, sys
from pathlib import Path
from warmline_service.config import CliSettings
from warmline_service.worker import Capabilities, Launcher, Site, SpawnKey
from cli_turns import turn

class NoModel:
    env = {}
    async def aclose(self): pass

async def no_model(slot):
    return NoModel()

async def main(binary, slots, guard):
    site = await Site.prepare(CliSettings(path=binary), Path(slots))
    if guard != "best":
        site = Site(site.settings, site.binary, site.slots, tuple(guard.split()))
    process = await Launcher(site, no_model, Capabilities("2.1.329")).start(SpawnKey())
    await turn(process, "!orphan")
    print(process.id, flush=True)
    await asyncio.sleep(60)

asyncio.run(main(*sys.argv[1:]))
"""


async def killed_service(tmp_path: Path, guard: str) -> str:
    """Run a service of one process in a process of its own and SIGKILL it; the slot's id."""
    binary = fake_cli.install(tmp_path / "bin", ignore_eof=True, ignore_term=True)
    paths = [str(Path(__file__).parents[1]), str(Path(__file__).parents[2] / "service")]
    service = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", PARENT, binary, tmp_path / "slots", guard),
        stdout=asyncio.subprocess.PIPE,
        env={"PATH": os.environ["PATH"], "PYTHONPATH": ":".join(paths)},
    )
    assert service.stdout
    slot = (await asyncio.wait_for(service.stdout.readline(), 20)).decode().strip()
    assert len(marked(slot)) >= 2
    service.kill()
    await service.communicate()
    return slot


async def test_nothing_survives_the_service(tmp_path: Path) -> None:
    """After SIGKILL of the service its CLI, and the daemon below it, are gone within 2 s."""
    slot = await killed_service(tmp_path, "best")
    until = time.monotonic() + 2
    while marked(slot):
        assert time.monotonic() < until
    await Slots(tmp_path / "slots").sweep(1.0)


async def test_the_next_service_clears_up(tmp_path: Path) -> None:
    """Where no namespace holds the tree together, the next start kills and wipes what is left."""
    slot = await killed_service(tmp_path, " ".join(NO_NAMESPACE))
    assert marked(slot), "the daemon escapes without a namespace, or this test proves nothing"
    slots = Slots(tmp_path / "slots")
    await asyncio.to_thread(slots.claim)
    assert await slots.sweep(2.0) == 1
    slots.release()
    assert not marked(slot)
    assert not (tmp_path / "slots" / slot).exists()


def test_one_directory_has_one_service(tmp_path: Path) -> None:
    """A second service never sweeps the slots of one that runs."""
    first, second = Slots(tmp_path), Slots(tmp_path)
    first.claim()
    with pytest.raises(SlotsInUse, match=str(tmp_path)):
        second.claim()
    first.release()
    second.claim()
    second.release()


def test_a_mark_that_nobody_has_kills_nobody() -> None:
    """The search is for this slot's own mark."""
    assert kill_marked({"no-such-slot"}, 1.0)
    assert tree_memory(2**22 + 1) == 0
