"""Files that a session begins with, and those that it leaves; with the real CLI."""

from collections.abc import AsyncIterator

import pytest
from parking import client_of, parked, say
from running import running_service
from warmline.v1 import session_config_pb2 as config_pb
from warmline_client import Client, WarmlineError
from warmline_service.server import Service

pytestmark = pytest.mark.real_cli


@pytest.fixture
async def service() -> AsyncIterator[Service]:
    """A service of the test's own, without spares: starting them takes longer than all else here."""
    pool = {"min_spares": 0, "max_spares": 0, "idle_ttl": 1.0}
    async with running_service(pool=pool) as service:
        yield service


@pytest.fixture
async def client(service: Service) -> AsyncIterator[Client]:
    """Its client."""
    async with client_of(service) as client:
        yield client


def _config(**files: bytes) -> config_pb.SessionConfig:
    given = [
        config_pb.WorkspaceFile(path=path.replace("__", "/"), data=data)
        for path, data in files.items()
    ]
    return config_pb.SessionConfig(workspace=config_pb.Workspace(files=given))


async def _read(client: Client, session_id: str, path: str) -> bytes:
    return b"".join([piece async for piece in client.read_file(session_id, path)])


async def test_a_session_begins_with_its_files_and_gives_what_it_made(
    client: Client, service: Service
) -> None:
    """The tools find them; what they leave can be listed and read, hot or parked."""
    config = _config(a=b"one", sub__b=b"two")
    config.tools.allowed.append("Bash")
    command = "cat a sub/b; printf made > sub/c; ln -s /etc/passwd link"
    async with client.chat(config=config) as chat:
        events = await say(chat, f'::tool Bash {{"command":"{command}"}}\n::say done')
        session_id = chat.session_id
        assert [e.tool_result.text for e in events if e.HasField("tool_result")] == ["onetwo"]
        hot = [(file.path, file.size) for file in await client.files(session_id)]
    await parked(service, session_id)
    kept = [(file.path, file.size) for file in await client.files(session_id)]
    assert kept == hot == [("a", 3), ("sub/b", 3), ("sub/c", 4)]
    assert await _read(client, session_id, "sub/c") == b"made"
    for path in ("nothing", "sub", "link"):
        with pytest.raises(WarmlineError) as caught:
            await _read(client, session_id, path)
        assert caught.value.reason == "FILE_NOT_FOUND"


async def test_no_path_leads_out(client: Client) -> None:
    """Neither when a file is placed nor when one is read."""
    for path in ("/etc/passwd", "../x", "a/../../x", "a//b", "", "a\\b", "a\nb"):
        files = [config_pb.WorkspaceFile(path=path, data=b"x")]
        assert await _refused(client, files) == "FIELD_INVALID"
        async with client.chat() as chat:
            with pytest.raises(WarmlineError) as caught:
                await _read(client, chat.session_id, path)
        assert caught.value.reason == "FIELD_INVALID"


async def test_files_that_are_in_each_others_way_are_refused(client: Client) -> None:
    """Before anything is stored."""
    for paths in (("a", "a"), ("a", "a/b"), ("a/b", "a")):
        files = [config_pb.WorkspaceFile(path=path) for path in paths]
        assert await _refused(client, files) == "FIELD_INVALID"
    assert not [session async for session in client.sessions()]


async def _refused(client: Client, files: list[config_pb.WorkspaceFile]) -> str:
    config = config_pb.SessionConfig(workspace=config_pb.Workspace(files=files))
    with pytest.raises(WarmlineError) as caught:
        async with client.chat(config=config):
            pass
    assert "open.config.workspace.files[" in str(caught.value)
    return str(caught.value.reason)


async def test_a_large_file_comes_in_pieces(client: Client) -> None:
    """Whole, and more than one message holds."""
    data = bytes(range(256)) * 12_000
    async with client.chat(config=_config(big=data, empty=b"")) as chat:
        assert await _read(client, chat.session_id, "big") == data
        assert await _read(client, chat.session_id, "empty") == b""


async def test_files_of_others_are_not_there(client: Client) -> None:
    """As every session of another tenant, one that is not there answers SESSION_NOT_FOUND."""
    with pytest.raises(WarmlineError) as caught:
        await client.files("00000000-0000-0000-0000-000000000000")
    assert caught.value.reason == "SESSION_NOT_FOUND"
