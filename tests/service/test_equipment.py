"""Directories, plugins, settings and files that a session brings: with the real CLI, and said why not."""

import os
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
from conversing import Model
from google.protobuf.json_format import ParseDict
from parking import client_of, say, start_of
from shared import ServiceThread, shared_service
from warmline.v1 import events_pb2 as pb
from warmline.v1 import session_config_pb2 as config_pb
from warmline_client import Client, Conversation, WarmlineError

pytestmark = [pytest.mark.real_cli, pytest.mark.shared_service]
_NO_SPARES = {"min_spares": 0, "max_spares": 0}


@pytest.fixture(scope="module")
def model() -> Model:
    """The model of the module's service."""
    return Model()


@pytest.fixture(scope="module")
def thread(model: Model) -> Iterator[ServiceThread]:
    """One without spares: starting them takes longer than all else here."""
    with shared_service(model, pool=_NO_SPARES) as thread:
        yield thread


@pytest.fixture
async def client(thread: ServiceThread, model: Model) -> AsyncIterator[Client]:
    """A client of it; the model has been asked nothing yet."""
    model.provider.requests.clear()
    async with client_of(thread.service) as client:
        yield client


def _config(**fields: Any) -> config_pb.SessionConfig:
    return ParseDict(fields, config_pb.SessionConfig())


def _results(events: list[pb.Event]) -> list[tuple[str, bool]]:
    """What the tools gave back, and whether they failed."""
    return [
        (e.tool_result.text, e.tool_result.is_error) for e in events if e.HasField("tool_result")
    ]


def _workspace(thread: ServiceThread, name: str) -> Path:
    """The directory of a named workspace, which is there afterwards."""
    place = thread.service.settings.data_dir / "tenants" / "dev" / "workspaces" / name
    place.mkdir(mode=0o700, parents=True, exist_ok=True)
    return place


async def _turn(client: Client, config: config_pb.SessionConfig, text: str) -> list[pb.Event]:
    async with client.chat(config=config) as chat:
        return await say(chat, text)


async def test_another_workspace_is_open_to_a_session_and_no_more(
    client: Client, thread: ServiceThread
) -> None:
    """A tool reads there without being asked for; not beside it, and not through a link out of it."""
    library, private = _workspace(thread, "library"), _workspace(thread, "private")
    (library / "a").write_text("open")
    (private / "a").write_text("closed")
    (library / "link").symlink_to(private)
    paths = (library / "a", private / "a", library / "link" / "a")
    # One after the other: the results come in the order of the calls then.
    text = "\n::say next\n".join(f'::tool Read {{"file_path":"{path}"}}' for path in paths)
    events = await _turn(client, _config(addDirectories=["library"]), f"{text}\n::say done")
    given = _results(events)
    assert [failed for _, failed in given] == [False, True, True]
    assert "open" in given[0][0]
    assert "closed" not in str(given)
    assert not start_of(events).misses or start_of(events).misses == ["no_spare"]


async def test_files_change_there_where_they_may_in_its_own(
    client: Client, thread: ServiceThread
) -> None:
    """With edits accepted a file is written there, beside it none; rules of the session hold as well."""
    library, private = _workspace(thread, "library"), _workspace(thread, "private")
    text = "\n::say next\n".join(
        f'::tool Write {{"file_path":"{place / "new"}","content":"x"}}'
        for place in (library, private)
    )
    config = _config(
        addDirectories=["library"],
        permissionMode="PERMISSION_MODE_ACCEPT_EDITS",
        tools={"disallowed": ["Bash"]},
    )
    events = await _turn(client, config, f'{text}\n::say next\n::tool Bash {{"command":"ls"}}')
    assert [failed for _, failed in _results(events)] == [False, True, True]
    assert (library / "new").read_text() == "x"
    assert not (private / "new").exists()


async def test_a_link_in_a_workspaces_place_is_refused(
    client: Client, thread: ServiceThread
) -> None:
    """Otherwise one session could lead another out of the tenant's root."""
    place = _workspace(thread, "library").parent / "led-out"
    place.symlink_to("/etc")
    events = await _turn(client, _config(addDirectories=["led-out"]), "hi")
    assert events[-1].HasField("turn_failed")
    assert WarmlineError(events[-1].turn_failed.status).reason == "STORAGE_UNAVAILABLE"


def _under(chat: Conversation, key: str) -> Conversation:
    """The conversation, begun under a key of the test's own."""
    chat._opening.idempotency_key = key
    return chat


async def test_files_are_put_into_a_named_workspace_when_a_session_begins(
    client: Client, thread: ServiceThread
) -> None:
    """In place of what was at their paths; the same session asked for again puts nothing."""
    place = _workspace(thread, "notes")
    (place / "old").write_text("old")
    (place / "kept").write_text("kept")
    workspace = {
        "name": "notes",
        "files": [{"path": "old", "data": "bmV3"}, {"path": "src/a", "data": "bmV3"}],
    }
    config = _config(workspace=workspace)
    async with _under(client.chat(config=config), "notes-1") as chat:
        events = await say(chat, '::tool Bash {"command":"cat old src/a kept"}\n::say done')
        session_id = chat.session_id
    assert _results(events) == [("newnewkept", False)]
    (place / "old").write_text("changed")
    async with _under(client.chat(config=config), "notes-1") as chat:
        assert chat.session_id == session_id
    assert (place / "old").read_text() == "changed"


@pytest.mark.parametrize("kind", ["link", "file", "directory"])
async def test_files_follow_no_link_out_of_a_workspace(
    client: Client, thread: ServiceThread, tmp_path: Path, kind: str
) -> None:
    """What is no directory on the way, or one in the file's place, refuses the session by the field."""
    place = _workspace(thread, f"trap-{kind}")
    if kind == "link":
        (place / "src").symlink_to(tmp_path)
    elif kind == "file":
        (place / "src").write_text("x")
    else:
        (place / "src" / "a").mkdir(parents=True)
    workspace = {"name": f"trap-{kind}", "files": [{"path": "src/a", "data": "bmV3"}]}
    with pytest.raises(WarmlineError) as caught:
        await _turn(client, _config(workspace=workspace), "hi")
    assert caught.value.reason == "FIELD_INVALID"
    assert list(caught.value.fields) == ["config.workspace.files[0].path"]
    assert not list(tmp_path.iterdir())
    assert not [each for each in os.listdir(place) if each.startswith(".")]


async def test_a_link_in_a_files_place_is_replaced(client: Client, thread: ServiceThread) -> None:
    """What it led to is not written to."""
    place = _workspace(thread, "replaced")
    target = place.parent / "target"
    target.write_text("mine")
    (place / "a").symlink_to(target)
    workspace = {"name": "replaced", "files": [{"path": "a", "data": "bmV3"}]}
    async with client.chat(config=_config(workspace=workspace)):
        pass
    assert target.read_text() == "mine"
    assert (place / "a").read_text() == "new"
    assert not (place / "a").is_symlink()
