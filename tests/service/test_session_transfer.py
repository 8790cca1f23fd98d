"""Exports and imports over the wire: what goes in comes out, and nothing else gets in."""

import asyncio
import io
import json
import tarfile
import threading
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc
import pytest
import zstandard
from parking import kill_cli, parked
from running import events_of, faking, running_client, running_service, text_of, until
from warmline.v1 import session_config_pb2 as config_pb
from warmline.v1 import session_service_pb2 as pb
from warmline.v1 import session_service_pb2_grpc as pb_grpc
from warmline_client import Client, WarmlineError, connect
from warmline_service.rpc import _transfer
from warmline_service.server import Service
from warmline_service.sessions import SessionConfig
from warmline_service.store import ArchiveStats

UUID = "01234567-89ab-cdef-0123-456789abcde{}"


def line(kind: str, content: object, number: int = 0, **fields: object) -> bytes:
    """A line of a transcript."""
    message = {"role": kind, "content": content}
    entry = {"type": kind, "message": message, "uuid": UUID.format(number)} | fields
    return json.dumps(entry).encode() + b"\n"


SESSION = pb.ImportSessionRequest(session=pb.Session(title="imported"))
ANSWER = [{"type": "text", "text": "ho"}]
SAID = pb.ImportSessionRequest(transcript=line("user", "hi") + line("assistant", ANSWER, 1))


def workspace(data: bytes) -> pb.ImportSessionRequest:
    """A piece of a workspace."""
    return pb.ImportSessionRequest(workspace=data)


def archive(name: str, data: bytes = b"", **info: Any) -> bytes:
    """An archive with one member."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        member = tarfile.TarInfo(name)
        member.size = len(data)
        for key, value in info.items():
            setattr(member, key, value)
        tar.addfile(member, io.BytesIO(data))
    return zstandard.compress(out.getvalue())


async def frames(*requests: Any) -> AsyncIterator[Any]:
    """As the client takes them."""
    for request in requests:
        yield request


def file_of(service: Service, session_id: str) -> Path:
    """A file of a session that has a process."""
    assert service._conversations is not None
    live = service._conversations.at_work(session_id)
    assert live is not None
    assert live.work is not None
    return live.work / "file"


async def session_with_a_file(client: Client, service: Service) -> str:
    """A session with two turns and a file."""
    async with client.chat(model="haiku", system="Be a fake.") as chat:
        for text in ("one", "two"):
            await events_of(chat, text)
        file_of(service, chat.session_id).write_bytes(b"content")
        return chat.session_id


async def bound(client: Client, session_id: str) -> dict[str, Any]:
    """What the process of a session was set up with, and knows to have been said."""
    async with client.chat(session_id=session_id) as chat:
        found: dict[str, Any] = json.loads(text_of(await events_of(chat, "!bound")))
        return found


async def test_an_import_goes_on_where_the_export_stopped(tmp_path: Path) -> None:
    """At another service: the same set-up, conversation and files, under an id of its own."""
    async with running_service(cli=faking(tmp_path)) as here:
        async with connect(f"127.0.0.1:{here.port}") as client:
            session_id = await session_with_a_file(client, here)
            exported = [part async for part in client.export(session_id)]
            bare = [part async for part in client.export(session_id, workspace=False)]
    assert [part.WhichOneof("part") for part in bare] == ["session", "transcript"]
    async with running_service(cli=faking(tmp_path)) as there:
        async with connect(f"127.0.0.1:{there.port}") as client:
            made = await client.import_(frames(*exported))
            assert made.id != session_id
            assert (made.title, made.turn_count, made.config.model) == ("one", 0, "haiku")
            assert made.state == pb.SESSION_STATE_PARKED
            assert await bound(client, made.id) == {
                "prompt": "Be a fake.",
                "model": "haiku",
                "history": ["one", "two", "!bound"],
            }
            assert file_of(there, made.id).read_bytes() == b"content"
            assert (await client.session(made.id)).title == "one"
            again = [part async for part in client.export(made.id)]
            assert again[-1].WhichOneof("part") == "workspace"


async def test_an_empty_session_can_be_carried_too(tmp_path: Path) -> None:
    """One in which nothing was said has nothing but its set-up."""
    async with running_client(cli=faking(tmp_path)) as client:
        async with client.chat(model="haiku") as chat:
            session_id = chat.session_id
        parts = [part async for part in client.export(session_id)]
        assert [part.WhichOneof("part") for part in parts] == ["session"]
        made = await client.import_(client.export(session_id))
        assert (await bound(client, made.id))["history"] == ["!bound"]


@pytest.mark.parametrize("state", ["runs", "waits"])
async def test_a_session_is_not_exported_while_it_has_a_turn(tmp_path: Path, state: str) -> None:
    """SESSION_BUSY says to come again, also of one that waits for a process; then it is."""
    pool = {"max_processes": 1, "min_spares": 0, "max_spares": 0}
    async with running_client(cli=faking(tmp_path), pool=pool) as client:
        async with client.chat() as busy, client.chat() as chat:
            first = busy if state == "waits" else chat
            running = await first.send("!hang")
            async for event in running:
                if event.HasField("text_delta"):
                    break
            turn = await chat.send("next")
            await anext(aiter(turn))
            with pytest.raises(WarmlineError, match="SESSION_BUSY") as caught:
                await anext(client.export(chat.session_id))
            assert caught.value.retry_after
            await first.interrupt()
            await turn.completed()
            assert (await anext(client.export(chat.session_id))).session.id == chat.session_id


async def test_a_session_is_exported_whole_or_not_at_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its process ends while its files are packed, and they go with it: SESSION_BUSY, and come again."""
    async with running_service(cli=faking(tmp_path)) as service:
        async with connect(f"127.0.0.1:{service.port}") as client:
            session_id = await session_with_a_file(client, service)
            archives = service._archives
            assert archives is not None

            async def too_late(directory: Path, target: Path) -> ArchiveStats | None:
                del directory, target
                monkeypatch.undo()
                kill_cli(service, session_id)
                await parked(service, session_id)
                return None  # As of a directory of which nothing is left.

            monkeypatch.setattr(archives, "pack", too_late)
            with pytest.raises(WarmlineError, match="SESSION_BUSY") as caught:
                await anext(client.export(session_id))
            assert caught.value.retry_after
            parts = [part async for part in client.export(session_id)]
            assert parts[-1].WhichOneof("part") == "workspace"


NAMED = config_pb.SessionConfig(workspace=config_pb.Workspace(name="w"))
HOSTILE: dict[str, tuple[str, list[pb.ImportSessionRequest]]] = {
    "nothing": ("FRAME_OUT_OF_ORDER", []),
    "no session": ("FRAME_OUT_OF_ORDER", [SAID]),
    "two sessions": ("FRAME_OUT_OF_ORDER", [SESSION, SESSION]),
    "session last": ("FRAME_OUT_OF_ORDER", [SESSION, SAID, SESSION]),
    "wrong order": ("FRAME_OUT_OF_ORDER", [SESSION, workspace(archive("a")), SAID]),
    "empty frame": ("FIELD_INVALID part", [SESSION, pb.ImportSessionRequest()]),
    "garbage": (
        "FIELD_INVALID transcript[2]",
        [SESSION, SAID, pb.ImportSessionRequest(transcript=b"\x00\xffgarbage")],
    ),
    "no message": (
        "FIELD_INVALID transcript",
        [SESSION, pb.ImportSessionRequest(transcript=b'{"type": "summary"}')],
    ),
    "no text": (
        "FIELD_INVALID transcript[0]",
        [SESSION, pb.ImportSessionRequest(transcript=line("user", "\udc00"))],
    ),
    "deep": (
        "FIELD_INVALID transcript[0]",
        [SESSION, pb.ImportSessionRequest(transcript=b"[" * 100_000)],
    ),
    "garbage archive": ("FIELD_INVALID workspace", [SESSION, SAID, workspace(b"garbage" * 99)]),
    "cut archive": ("FIELD_INVALID workspace", [SESSION, workspace(archive("a", b"x" * 999)[:-9])]),
    "climbing archive": ("FIELD_INVALID workspace", [SESSION, workspace(archive("../a"))]),
    "device": ("FIELD_INVALID workspace", [SESSION, workspace(archive("a", type=tarfile.CHRTYPE))]),
    "named workspace": (
        "FIELD_INVALID workspace",
        [
            pb.ImportSessionRequest(session=pb.Session(config=NAMED)),
            workspace(archive("a")),
        ],
    ),
    "model": (
        "MODEL_NOT_FOUND",
        [
            pb.ImportSessionRequest(
                session=pb.Session(config=config_pb.SessionConfig(model="nobody"))
            )
        ],
    ),
    "config": (
        "FIELD_INVALID session.config.model",
        [
            pb.ImportSessionRequest(
                session=pb.Session(config=config_pb.SessionConfig(model="not a model"))
            )
        ],
    ),
}


async def test_a_hostile_import_is_refused_by_name(tmp_path: Path) -> None:
    """What is wrong is said, no session is made, and no file is left."""
    async with running_service(cli=faking(tmp_path)) as service:
        async with connect(f"127.0.0.1:{service.port}") as client:
            for name, (expected, requests) in HOSTILE.items():
                reason, _, field = expected.partition(" ")
                with pytest.raises(WarmlineError) as caught:
                    await client.import_(frames(*requests))
                assert caught.value.reason == reason, (name, caught.value)
                assert list(caught.value.fields) == ([field] if field else []), name
            assert [each async for each in client.sessions()] == []
            assert left(service) == []


def left(service: Service) -> list[Path]:
    """Files of imports that are still there."""
    data = service.settings.data_dir
    folders = (data / "archives", data / "blobs")
    return [path for folder in folders for path in folder.rglob("*") if path.is_file()]


async def test_an_import_has_a_largest_size(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of each part, and says which; what was received until then is not kept."""
    monkeypatch.setattr(_transfer, "_WORKSPACE_BYTES", 5_000_000)
    piece = b"x" * 1_000_000
    async with running_service(cli=faking(tmp_path)) as service:
        async with connect(f"127.0.0.1:{service.port}") as client:
            for part in ("transcript", "workspace"):

                async def pieces(part: str = part) -> AsyncIterator[pb.ImportSessionRequest]:
                    yield SESSION
                    # More than is allowed, and than the way there holds.
                    for _ in range(60):
                        request = pb.ImportSessionRequest()
                        setattr(request, part, piece)
                        yield request

                with pytest.raises(WarmlineError, match="MESSAGE_TOO_LARGE") as caught:
                    await client.import_(pieces())
                assert caught.value.metadata["field"] == part
            assert left(service) == []


async def test_an_import_that_is_given_up_makes_nothing(tmp_path: Path) -> None:
    """A client that goes away in the middle is not one that has sent all."""
    async with running_service(cli=faking(tmp_path)) as service:
        address = f"127.0.0.1:{service.port}"
        async with connect(address) as client:
            for _ in range(5):
                async with grpc.aio.insecure_channel(address) as channel:
                    call: Any = pb_grpc.SessionServiceStub(channel).ImportSession()
                    for request in (SESSION, SAID, workspace(archive("a"))):
                        await call.write(request)
                    call.cancel()
            await asyncio.sleep(0.2)
            assert [each async for each in client.sessions()] == []
            await until(lambda: left(service) == [])


@pytest.mark.parametrize("how", ["import", "fork"])
async def test_who_goes_while_files_are_kept_leaves_none_that_are_nobodys(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    """The disk goes on with them; so the session is made all the same, and has them."""
    async with running_service(cli=faking(tmp_path)) as service:
        conversations, store = service._conversations, service._store
        assert conversations is not None
        assert store is not None
        async with connect(f"127.0.0.1:{service.port}") as client:
            source = await session_with_a_file(client, service)
            put = store.blobs._backend.put
            arrived, go, kept = (threading.Event() for _ in range(3))

            def slow(*arguments: Any) -> None:
                arrived.set()
                assert go.wait(20)
                put(*arguments)
                kept.set()

            monkeypatch.setattr(store.blobs._backend, "put", slow)
            brought = tmp_path / "brought"
            brought.write_bytes(archive("file", b"content"))
            making = asyncio.ensure_future(
                conversations.copies.fork("dev", source, "", "", "")
                if how == "fork"
                else conversations.copies.import_("dev", SessionConfig(), "made", b"", brought)
            )
            await until(arrived.is_set)
            making.cancel()
            await asyncio.wait({making})
            assert making.cancelled()
            go.set()
            await until(lambda: kept.is_set() and not conversations._tasks)
            (path,) = left(service)
            assert path.parent.name in [each.id async for each in client.sessions()]


async def test_a_title_is_one_line(tmp_path: Path) -> None:
    """Whatever the caller calls it; a database need not be able to keep anything else."""
    title = "one\ntwo\0three " + "x" * 100
    async with running_client(cli=faking(tmp_path)) as client:
        request = pb.ImportSessionRequest(session=pb.Session(title=title))
        made = await client.import_(frames(request))
        assert made.title.startswith("one two three xxx")
        assert len(made.title) == 80


async def test_transfers_count_as_streams(tmp_path: Path) -> None:
    """A tenant cannot fill the disk with imports that never end."""
    limits = {"streams_per_tenant": 1}
    async with running_client(cli=faking(tmp_path), limits=limits) as client, client.chat() as chat:
        for transfer in (client.import_(frames(SESSION)), anext(client.export(chat.session_id))):
            with pytest.raises(WarmlineError, match="QUOTA_EXCEEDED"):
                await transfer
