"""The files of a session outlive its process, and those of a named workspace its sessions."""

import asyncio
import io
import json
import shutil
import tarfile
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import zstandard
from conversing import Model
from parking import (
    client_of,
    conversation_of,
    failure,
    kill_cli,
    notices,
    parked,
    resumed,
    row_of,
    say,
    start_of,
    work_of,
)
from running import data_directory, faking, running_service, service_in, text_of, until
from stores import forbid_writing
from warmline.v1 import chat_service_pb2 as chat_pb
from warmline.v1 import events_pb2 as pb
from warmline.v1 import session_config_pb2 as config_pb
from warmline_client import Client, Conversation, connect
from warmline_service.server import Service
from warmline_service.tenants import hash_key, new_key


@pytest.fixture
async def data() -> AsyncIterator[Path]:
    """A data directory."""
    with data_directory() as directory:
        yield directory


def named(name: str, **config: Any) -> config_pb.SessionConfig:
    """A configuration with a named workspace."""
    return config_pb.SessionConfig(workspace=config_pb.Workspace(name=name), **config)


async def write(service: Service, session_id: str, text: str) -> None:
    """Leave a file in the session's own directory."""
    (await work_of(service, session_id) / "file").write_text(text)


async def read(service: Service, session_id: str) -> str:
    """What is in that file."""
    return (await work_of(service, session_id) / "file").read_text()


def archives(data: Path) -> list[Path]:
    """What is kept of all sessions' files."""
    return [path for path in (data / "blobs").rglob("workspace-*") if path.is_file()]


async def test_files_outlive_their_process(tmp_path: Path, data: Path) -> None:
    """Parked, evicted, crashed, drained: they are in the next process's directory before its turn."""
    cli = faking(tmp_path)
    async with service_in(data, cli=cli, pool={"idle_ttl": 0.3}) as service:
        async with client_of(service) as client, client.chat() as chat:
            await say(chat, "!write parked")
            session_id = chat.session_id
            await parked(service, session_id)
            await finds(chat, "parked")
    pool = {"min_spares": 0, "max_spares": 0, "max_processes": 1}
    async with service_in(data, cli=cli, pool=pool) as service, client_of(service) as client:
        async with client.chat(session_id=session_id) as chat, client.chat() as other:
            await finds(chat, "parked")
            await say(chat, "!write crashed")
            assert failure(await say(chat, "!die")).reason == "CLI_CRASHED"
            await finds(chat, "crashed")
            await say(chat, "!write evicted")
            await say(other, "out of the way")
            await finds(chat, "evicted")
            await say(chat, "!write drained")
    async with service_in(data, cli=cli, pool=pool) as service, client_of(service) as client:
        async with client.chat(session_id=session_id) as chat:
            await finds(chat, "drained")


async def finds(chat: Conversation, text: str) -> None:
    """The session's next process finds the file of the last one."""
    events = await say(chat, "!read")
    resumed(events)
    assert text_of(events) == text


async def test_an_empty_directory_is_not_kept(tmp_path: Path, data: Path) -> None:
    """Nor is what was kept before, once it is empty again."""
    async with service_in(data, cli=faking(tmp_path)) as service, client_of(service) as client:
        async with client.chat() as chat:
            for text, kept in (("", False), ("something", True), ("", False)):
                await say(chat, "hello")
                work = await work_of(service, chat.session_id)
                (work / "file").unlink(missing_ok=True)
                if text:
                    await write(service, chat.session_id, text)
                kill_cli(service, chat.session_id)
                await parked(service, chat.session_id)
                assert bool((await row_of(service, chat.session_id)).workspace_key) == kept
                # The one before goes once the session knows that it has it no more.
                await until(lambda n=kept: len(archives(data)) == n)  # type: ignore[misc]


async def test_files_that_cannot_be_restored_are_told_of(tmp_path: Path, data: Path) -> None:
    """The turn goes on without them, and says so."""
    async with service_in(data, cli=faking(tmp_path)) as service, client_of(service) as client:
        async with client.chat() as chat:
            await say(chat, "one")
            await write(service, chat.session_id, "text")
            kill_cli(service, chat.session_id)
            await parked(service, chat.session_id)
            (archive,) = archives(data)
            archive.write_bytes(b"damaged")
            events = await say(chat, "two")
            assert notices(events) == ["workspace_lost"]
            assert events[-1].HasField("turn_completed")


async def test_a_process_cannot_have_anothers_files_kept_as_its_own(
    tmp_path: Path, data: Path
) -> None:
    """A link in the place of its slot is not followed: what was kept before stays, and that is told."""
    async with service_in(data, cli=faking(tmp_path)) as service, client_of(service) as client:
        async with client.chat() as chat, client.chat() as victim:
            for each in (chat, victim):
                await say(each, "one")
            await write(service, victim.session_id, "secret")
            slot = (await work_of(service, chat.session_id)).parent
            slot.rename(slot.with_name("moved"))
            slot.symlink_to((await work_of(service, victim.session_id)).parent)
            kill_cli(service, chat.session_id)
            events = await say(chat, "two")
            assert notices(events) == ["workspace_lost"]
            assert not list((await work_of(service, chat.session_id)).iterdir())
            slot.unlink()
            shutil.rmtree(slot.with_name("moved"))


async def test_a_fork_has_files_of_its_own(tmp_path: Path, data: Path) -> None:
    """Copied from a session that is hot or parked; what either writes later is its own."""
    async with service_in(data, cli=faking(tmp_path)) as service, client_of(service) as client:
        async with client.chat() as chat:
            await say(chat, "one")
            await write(service, chat.session_id, "before")
            hot = await forked(service, client, chat.session_id)
            await write(service, chat.session_id, "after")
            kill_cli(service, chat.session_id)
            assert await forked(service, client, chat.session_id) == "after"
            assert hot == "before"


async def forked(service: Service, client: Client, session_id: str) -> str:
    """What a fork finds in the file, before it writes to its own."""
    fork = chat_pb.ForkFrom(session_id=session_id)
    async with client.chat(fork=fork) as chat:
        resumed(await say(chat, "in the fork"))
        found = await read(service, chat.session_id)
        await write(service, chat.session_id, "the fork's")
        return found


@pytest.mark.parametrize("who", ["turn", "fork", "export"])
async def test_a_session_that_comes_back_while_its_files_are_saved_has_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, who: str
) -> None:
    """Lost, and loaded again at once: whoever needs them waits for the process that it had before."""
    async with running_service(cli=faking(tmp_path)) as service, client_of(service) as client:
        async with client.chat() as chat:
            await say(chat, "!write mine")
        live = conversation_of(service, chat.session_id)
        assert live is not None
        conversations, workspaces = service._conversations, service._workspaces
        assert conversations is not None
        assert workspaces is not None
        keep, saving, go = workspaces.keep, asyncio.Event(), asyncio.Event()

        async def slow(*arguments: Any) -> str:
            saving.set()
            await go.wait()
            return await keep(*arguments)

        monkeypatch.setattr(workspaces, "keep", slow)
        conversations._on_lost(live.session)
        await asyncio.wait_for(saving.wait(), 60)
        monkeypatch.undo()
        finding = asyncio.create_task(found_by(client, chat.session_id, who))
        await asyncio.wait({finding}, timeout=0.3)
        assert not finding.done()
        go.set()
        assert await asyncio.wait_for(finding, 20) == "mine"


async def found_by(client: Client, session_id: str, who: str) -> str:
    """What is in the file that the session wrote last."""
    if who == "export":
        parts = [part.workspace async for part in client.export(session_id)]
        made = zstandard.decompress(b"".join(parts), max_output_size=100_000)
        with tarfile.open(fileobj=io.BytesIO(made)) as tar:
            file = tar.extractfile("file")
            assert file is not None
            return file.read().decode()
    fork = chat_pb.ForkFrom(session_id=session_id) if who == "fork" else None
    async with client.chat(session_id=session_id if fork is None else "", fork=fork) as chat:
        events = await say(chat, "!read")
        resumed(events)
        return text_of(events)


@pytest.mark.parametrize("then", ["turn", "delete"])
async def test_files_of_a_process_that_ends_in_an_outage(
    tmp_path: Path, data: Path, then: str
) -> None:
    """They are set aside: the next turn has them, and a session that is deleted leaves none."""
    async with service_in(data, cli=faking(tmp_path)) as service, client_of(service) as client:
        async with client.chat() as chat:
            await say(chat, "!write mine")
            assert service._store is not None
            await asyncio.to_thread(forbid_writing, service._store, forbid=True)
            kill_cli(service, chat.session_id)
            await until(lambda: set_aside(data) != [])
            await asyncio.to_thread(forbid_writing, service._store, forbid=False)
            if then == "turn":
                await finds(chat, "mine")
                assert len(archives(data)) == 1
            else:
                await client.delete(chat.session_id)
                assert not [path for path in archives(data) if chat.session_id in str(path)]
            assert set_aside(data) == []


def set_aside(data: Path) -> list[Path]:
    """Files that could not be saved yet."""
    return list(data.glob("unsaved/*/file"))


async def place_of(chat: Conversation) -> Path:
    """Where the session's process works, as it says itself."""
    return Path(json.loads(text_of(await say(chat, "!cwd"))))


async def test_a_named_workspace_is_the_tenants(tmp_path: Path, data: Path) -> None:
    """All sessions that name it work in it, one after another or together, and after a restart."""
    cli = faking(tmp_path)
    async with service_in(data, cli=cli) as service, client_of(service) as client:
        config = named("shared")
        async with client.chat(config=config) as one, client.chat(config=config) as two:
            place = await place_of(one)
            assert place == data / "tenants" / "dev" / "workspaces" / "shared"
            assert await place_of(two) == place
            assert place.stat().st_mode & 0o777 == 0o700
            (place / "file").write_text("kept")
            async with client.chat(config=named("other")) as three:
                assert await place_of(three) != place
            session_id = one.session_id
            assert not (await row_of(service, session_id)).slot_id
    async with service_in(data, cli=cli) as service, client_of(service) as client:
        async with client.chat(session_id=session_id) as chat:
            assert resumed(await say(chat, "on")) > 0
            assert await place_of(chat) == place
        assert (place / "file").read_text() == "kept"
        assert not (await row_of(service, session_id)).workspace_key


async def test_a_workspace_of_the_same_name_is_another_tenants(tmp_path: Path) -> None:
    """Two tenants that name the same workspace have one each."""
    (acme, first), (other, second) = tenant("acme"), tenant("other")
    cli = faking(tmp_path)
    async with running_service(tenants=[acme, other], cli=cli) as service:
        places = []
        for key in (first, second):
            async with connect(f"127.0.0.1:{service.port}", api_key=key) as client:
                async with client.chat(config=named("same")) as chat:
                    places.append(await place_of(chat))
        assert [place.parts[-3] for place in places] == ["acme", "other"]


def tenant(name: str) -> tuple[dict[str, Any], str]:
    """A tenant with one key, for the settings; and the key."""
    identifier, secret = new_key()
    return {"id": name, "keys": [{"id": identifier, "sha256": hash_key(secret)}]}, secret


@pytest.mark.parametrize("planted", ["link", "file", "link to the tenant"])
async def test_what_is_planted_in_the_place_of_a_workspace_is_refused(
    tmp_path: Path, data: Path, planted: str
) -> None:
    """STORAGE_UNAVAILABLE, and nothing is made where a link leads; the session can be used later."""
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    async with service_in(data, cli=faking(tmp_path)) as service, client_of(service) as client:
        place = data / "tenants" / "dev" / "workspaces" / "mine"
        if planted == "link to the tenant":
            place = data / "tenants" / "dev"
        place.parent.mkdir(parents=True)
        if planted == "file":
            place.touch()
        else:
            place.symlink_to(elsewhere)
        async with client.chat(config=named("mine")) as chat:
            assert failure(await say(chat, "hello")).reason == "STORAGE_UNAVAILABLE"
            assert not list(elsewhere.iterdir())
            place.unlink()
            assert (await say(chat, "hello"))[-1].HasField("turn_completed")


@pytest.fixture
def model(monkeypatch: pytest.MonkeyPatch) -> Model:
    """The model of every service of the test."""
    made = Model()
    monkeypatch.setattr("warmline_service.server.make_provider", lambda *_: made.provider)
    return made


@pytest.mark.real_cli
async def test_the_real_cli_works_in_a_named_workspace(data: Path, model: Model) -> None:
    """On a warmed spare, told its past, and resumed; with a system prompt as well."""
    config = named("mine", model="haiku", system_prompt=config_pb.SystemPrompt(replace="MARK"))
    place = data / "tenants" / "dev" / "workspaces" / "mine"
    async with service_in(data) as service, client_of(service) as client:
        async with client.chat(config=config) as chat:
            events = await say(chat, '::tool Bash {"command": "pwd; ls"}')
            assert start_of(events).start == pb.START_KIND_WARM
            assert str(place) in text_of(events)
            (place / "seen").touch()
            for text in ("again", '::tool Read {"file_path": "/nothing"}'):
                kill_cli(service, chat.session_id)
                resumed(await say(chat, text))
            kill_cli(service, chat.session_id)
            events = await say(chat, '::tool Bash {"command": "pwd; ls"}')
            resumed(events)
            assert f"{place}\nseen" in text_of(events)
            assert "MARK" in str(model.asked[-1]["system"])
            assert str(place) in str(model.asked[-1]["messages"])
