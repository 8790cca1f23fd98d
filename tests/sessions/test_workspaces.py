"""The files of a session are in one place at least, whatever fails on their way, and in no one else's."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from store.archives import small_archives
from stores import TENANT, forbid_writing, opened, row
from warmline_service.errors import Reason, WarmlineError
from warmline_service.sessions import Workspaces
from warmline_service.store import SessionRow, Store

SLOT = "slot"


class Place:
    """A session whose files are in a slot, and where they may go."""

    def __init__(
        self, store: Store, workspaces: Workspaces, root: Path, session: SessionRow
    ) -> None:
        self.store = store
        self.workspaces = workspaces
        self.root = root
        self.session = session
        self.work = root / "running" / SLOT / "work"
        self.aside = root / "unsaved" / SLOT

    async def save(self) -> None:
        """As when the process has ended."""
        await self.workspaces.save(TENANT, self.session.id, self.work, SLOT)

    async def save_late(self) -> None:
        """As before the session's next turn."""
        await self.workspaces.save_late(await self.row())

    async def row(self) -> SessionRow:
        """The session as it is stored."""
        return await self.store.session(TENANT, self.session.id)

    async def restored(self) -> str:
        """What the session's next process finds in the file."""
        found = self.root / "running" / "next"
        found.mkdir(parents=True)
        await self.workspaces.restore((await self.row()).workspace_key, found)
        return (found / "file").read_text()

    def blobs(self) -> list[Path]:
        """What is kept."""
        return [path for path in (self.root / "blobs").rglob("*") if path.is_file()]


@pytest.fixture
async def place(tmp_path: Path) -> AsyncIterator[Place]:
    """A session with a file in its slot."""
    root = tmp_path.resolve()
    async with opened("", root) as store, small_archives() as archives:
        session = row()
        await store.create(session, None, 10)
        await store.place_workspace(session.id, SLOT)
        made = Place(store, Workspaces(store, archives, root), root, session)
        made.work.mkdir(parents=True)
        (made.work / "file").write_text("mine")
        yield made


async def set_aside(place: Place) -> None:
    """The store is down when the process ends, and up again later."""
    await asyncio.to_thread(forbid_writing, place.store, forbid=True)
    with pytest.raises(WarmlineError, match="STORAGE_UNAVAILABLE"):
        await place.save()
    await asyncio.to_thread(forbid_writing, place.store, forbid=False)


async def test_files_that_cannot_be_saved_are_set_aside_and_saved_later(place: Place) -> None:
    """Where nobody else looks; afterwards they are kept as ever, and nothing is set aside."""
    await set_aside(place)
    assert not place.work.exists()
    assert (place.aside.parent.stat().st_mode & 0o777) == 0o700
    await place.save_late()
    assert await place.restored() == "mine"
    assert (await place.row()).slot_id == ""
    # What was kept when its row could not be changed is what counts now.
    assert len(place.blobs()) == 1
    assert not place.aside.exists()


async def test_files_that_cannot_be_saved_later_either_stay_set_aside(place: Place) -> None:
    """Until they can."""
    await set_aside(place)
    await asyncio.to_thread(forbid_writing, place.store, forbid=True)
    with pytest.raises(WarmlineError, match="STORAGE_UNAVAILABLE"):
        await place.save_late()
    await asyncio.to_thread(forbid_writing, place.store, forbid=False)
    await place.save_late()
    assert await place.restored() == "mine"


@pytest.mark.parametrize("link", ["running", "slot", "work"])
async def test_what_a_link_leads_to_is_neither_saved_nor_set_aside(place: Place, link: str) -> None:
    """Wherever on the way to the slot's directory a process has put it."""
    path = {"running": place.root / "running", "slot": place.work.parent, "work": place.work}[link]
    theirs = path.rename(path.with_name("theirs"))
    path.symlink_to(theirs)
    with pytest.raises(WarmlineError, match="STORAGE_UNAVAILABLE"):
        await place.save()
    assert (place.work / "file").read_text() == "mine"
    assert not place.aside.parent.exists()
    assert place.blobs() == []


@pytest.mark.parametrize("link", ["folder", "entry"])
async def test_a_link_in_place_of_what_was_set_aside_is_not_followed(
    place: Place, link: str
) -> None:
    """Neither saved from there, nor removed, nor is anything set aside there."""
    theirs = place.root / "theirs"
    (theirs / SLOT).mkdir(parents=True)
    (theirs / SLOT / "file").write_text("theirs")
    if link == "folder":
        place.aside.parent.symlink_to(theirs)
        await asyncio.to_thread(forbid_writing, place.store, forbid=True)
        with pytest.raises(WarmlineError, match="STORAGE_UNAVAILABLE"):
            await place.save()
        await asyncio.to_thread(forbid_writing, place.store, forbid=False)
        assert (place.work / "file").read_text() == "mine"
    else:
        place.aside.parent.mkdir()
        place.aside.symlink_to(theirs / SLOT)
    kept = place.blobs()
    with pytest.raises(WarmlineError, match="STORAGE_UNAVAILABLE"):
        await place.save_late()
    await place.workspaces.forget(await place.row())
    assert place.blobs() == kept
    assert (theirs / SLOT / "file").read_text() == "theirs"


async def test_a_session_that_is_deleted_has_nothing_set_aside(place: Place) -> None:
    """Nor does one without a slot have anything of another's removed."""
    await set_aside(place)
    await place.workspaces.forget(row())
    assert (place.aside / "file").read_text() == "mine"
    await place.workspaces.forget(await place.row())
    assert not place.aside.exists()
    assert place.aside.parent.is_dir()


@pytest.mark.parametrize("step", ["before it is packed", "before it is kept", "before it counts"])
async def test_a_session_that_is_deleted_while_its_files_are_saved_has_none(
    place: Place, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    """At whichever step of saving them."""
    whose, name = {
        "before it is packed": (place.workspaces._archives, "pack"),
        "before it is kept": (place.store.blobs, "put"),
        "before it counts": (place.store, "replace_workspace"),
    }[step]
    real = getattr(whose, name)

    async def deleted_first(*arguments: object) -> object:
        await place.store.delete(place.session)
        return await real(*arguments)

    monkeypatch.setattr(whose, name, deleted_first)
    await place.save()
    assert place.blobs() == []
    assert not list((place.root / "blobs").glob(f"*/{place.session.id}"))
    assert not place.aside.exists()


async def test_old_files_that_cannot_be_removed_stop_no_new_ones(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The new ones count, and are not set aside."""
    await place.save()
    await place.store.place_workspace(place.session.id, SLOT)
    (place.work / "file").write_text("newer")

    async def down(*_: object) -> None:
        raise WarmlineError(Reason.STORAGE_UNAVAILABLE, "down")

    monkeypatch.setattr(place.store.blobs, "delete", down)
    await place.save()
    assert await place.restored() == "newer"
    assert not place.aside.exists()


async def test_files_of_a_process_that_the_session_has_no_more_are_not_kept(place: Place) -> None:
    """What another one was given counts."""
    await place.store.place_workspace(place.session.id, "another")
    await place.save()
    assert place.blobs() == []
    assert ((await place.row()).slot_id, (await place.row()).workspace_key) == ("another", "")


async def test_whoever_waits_for_a_slots_files_is_told_when_they_are_saved(place: Place) -> None:
    """However many wait; for a slot that nobody expects anything of, nobody waits."""
    await place.workspaces.settled(SLOT)
    saving = place.workspaces.expect(SLOT)
    waiting = [asyncio.create_task(place.workspaces.settled(SLOT)) for _ in range(2)]
    await asyncio.wait(waiting, timeout=0.05)
    assert not any(task.done() for task in waiting)
    saving.set_result(None)
    await asyncio.wait_for(asyncio.gather(*waiting), 5)
    await asyncio.wait_for(place.workspaces.settled(SLOT), 5)
