"""What a slot holds can be saved before it is wiped, and nobody who saves holds that up."""

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path

from warmline_service.worker import CliProcess, Slot, Slots
from warmline_service.worker._salvage import offer

Start = Callable[..., Awaitable[CliProcess]]


class Saved:
    """Keeps the names of what it was offered; `fail` and `hang` say how it misbehaves."""

    def __init__(self, *, fail: bool = False, hang: bool = False) -> None:
        self.names: list[str] = []
        self._fail = fail
        self._hang = hang

    async def __call__(self, slot: Slot) -> None:
        """Be offered a slot."""
        self.names += [
            each.name for each in await asyncio.to_thread(lambda: [*slot.work.iterdir()])
        ]
        if self._fail:
            raise RuntimeError("no room")
        if self._hang:
            await asyncio.Event().wait()


def leave(slot: Slot) -> None:
    """Leave a file in the slot."""
    slot.work.mkdir(parents=True, exist_ok=True)
    (slot.work / "report.txt").write_text("done")


async def test_a_process_offers_its_slot_when_it_has_ended(start: Start) -> None:
    """Whoever asked for it sees the files of a process that nothing changes any more."""
    process: CliProcess = await start()
    leave(process.slot)
    process.before_wipe = saved = Saved()
    await process.stop()
    assert saved.names == ["report.txt"]
    assert not process.slot.root.exists()


async def test_saving_that_fails_keeps_no_slot(start: Start) -> None:
    """The failure is logged, and the slot is wiped all the same."""
    process: CliProcess = await start()
    leave(process.slot)
    process.before_wipe = saved = Saved(fail=True)
    await process.stop()
    assert saved.names == ["report.txt"]
    assert not process.slot.root.exists()


async def test_saving_has_a_deadline(tmp_path: Path) -> None:
    """It is cancelled when its time is over."""
    slot = Slot("slot", tmp_path)
    leave(slot)
    async with asyncio.timeout(5):
        await offer(Saved(hang=True), slot, timeout=0.05)


async def test_the_slots_of_a_killed_service_are_offered(tmp_path: Path) -> None:
    """The next service sees each of them before it is wiped."""
    slots = Slots(tmp_path / "slots")
    slots.root.mkdir()
    for name in ("one", "two"):
        leave(Slot(name, slots.root / name))
    saved = Saved()
    assert await slots.sweep(1.0, saved) == 2
    assert saved.names == ["report.txt"] * 2
    assert not list(slots.root.iterdir())
