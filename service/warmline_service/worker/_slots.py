"""The directory of all slots: makes them, wipes them, clears up after a killed service."""

from __future__ import annotations

import asyncio
import fcntl
import os
import secrets
import shutil
from pathlib import Path

from warmline_service.sandbox import Owner
from warmline_service.worker._guard import kill_marked
from warmline_service.worker._salvage import Salvage, offer
from warmline_service.worker._slot import Slot


class SlotsInUse(Exception):  # noqa: N818  # named for what is the case
    """Another running service has this directory."""


class Slots:
    """Owns `root` and all in it; only one running service may."""

    def __init__(self, root: Path) -> None:
        self.root = root.expanduser().absolute()
        self._lock: int | None = None

    def claim(self) -> None:
        """Make the directory and take it. Blocks; raises SlotsInUse and OSError."""
        self.root.mkdir(mode=0o700, parents=True, exist_ok=True)
        self.root.chmod(0o700)
        lock = os.open(self.root / ".lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            # The kernel lets go of it when this process ends, however it ends.
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(lock)
            raise SlotsInUse(f"another service is using {self.root}") from None
        self._lock = lock

    def leftovers(self, timeout: float) -> list[Slot]:
        """What an earlier service left behind; nothing runs in it any more. Blocks."""
        left = [Slot(each.name, each) for each in self.root.iterdir() if each.is_dir()]
        if left:
            kill_marked({slot.id for slot in left}, timeout)
        return left

    async def sweep(self, timeout: float, salvage: Salvage | None = None) -> int:
        """Kill and wipe what an earlier service left behind, each slot offered to `salvage` first.

        Gives their number. Raises OSError.
        """
        left = await asyncio.to_thread(self.leftovers, timeout)
        for slot in left:
            if salvage is not None:
                await offer(salvage, slot)
            await asyncio.to_thread(wipe, slot)
        return len(left)

    def new(self) -> Slot:
        """A slot that nobody has had; it is not on disk yet."""
        slot_id = secrets.token_hex(8)
        return Slot(slot_id, self.root / slot_id)

    def release(self) -> None:
        """Let another service have the directory."""
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None


def make(slot: Slot) -> None:
    """Make a slot's directories. Blocks; raises OSError."""
    for path in (slot.root, slot.home, slot.config, slot.tmp, slot.work):
        path.mkdir(mode=0o700)
    if slot.owner is not None:
        # Its process goes through here; what is here is not for it to replace.
        slot.root.chmod(0o755)


def hand_over(path: Path, owner: Owner | None) -> None:
    """Have a directory and all in it belong to the process; follows no link. Blocks; raises OSError."""
    if owner is None:
        return
    below = os.fwalk(path) if path.is_dir() else ()
    for _, folders, files, here in below:
        for name in (*folders, *files):
            os.chown(name, owner.uid, owner.gid, dir_fd=here, follow_symlinks=False)
    os.chown(path, owner.uid, owner.gid, follow_symlinks=False)


def wipe(slot: Slot) -> bool:
    """Remove a slot's directory; False if something of it stayed. Blocks."""
    shutil.rmtree(slot.root, ignore_errors=True)
    return not slot.root.exists()
