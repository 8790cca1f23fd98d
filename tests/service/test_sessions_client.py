"""The typed client of sessions: pages, repetitions, deadlines, and exports as files."""

import asyncio
import io
import json
import tarfile
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import grpc
import pytest
from grpc.aio import AioRpcError, Metadata
from running import (
    data_directory,
    events_of,
    faking,
    running_client,
    running_service,
    service_in,
    text_of,
)
from warmline.v1 import session_service_pb2 as pb
from warmline_client import Client, WarmlineError, connect

SESSION = "01234567-89ab-cdef-0123-456789abcdef"


class Flaky:
    """A stub whose methods fail so many times before they answer; remembers how it was called."""

    def __init__(self, failures: int, code: grpc.StatusCode, answer: object) -> None:
        self.failures = failures
        self.code = code
        self.answer = answer
        self.calls: list[tuple[str, Any]] = []
        self.timeouts: list[float | None] = []

    def __getattr__(self, name: str) -> Callable[..., Awaitable[object]]:
        async def call(request: Any, *, metadata: object, timeout: float | None) -> object:
            self.calls.append((name, request))
            self.timeouts.append(timeout)
            if len(self.calls) <= self.failures:
                raise AioRpcError(self.code, Metadata(), Metadata(), "down")
            return self.answer

        return call


METHODS: dict[str, Callable[[Client], Awaitable[Any]]] = {
    "ListSessions": lambda client: anext(client.sessions()),
    "GetSession": lambda client: client.session(SESSION),
    "ForkSession": lambda client: client.fork(SESSION),
    "DeleteSession": lambda client: client.delete(SESSION),
}


def flaky(client: Client, failures: int, code: grpc.StatusCode) -> Flaky:
    """Put such a stub into a client."""
    session = pb.Session(id=SESSION)
    answer = SimpleNamespace(session=session, sessions=[session], next_page_token="")
    stub = Flaky(failures, code, answer)
    client._sessions = stub
    return stub


@pytest.mark.parametrize("method", METHODS)
async def test_what_can_be_repeated_is(method: str) -> None:
    """While the service is away; the same request each time, and each with a deadline."""
    async with connect("127.0.0.1:1") as client:
        stub = flaky(client, 2, grpc.StatusCode.UNAVAILABLE)
        await METHODS[method](client)
        assert [name for name, _ in stub.calls] == [method] * 3
        assert len({request.SerializeToString() for _, request in stub.calls}) == 1
        assert all(stub.timeouts)


@pytest.mark.parametrize("method", METHODS)
async def test_a_refusal_is_not_repeated(method: str) -> None:
    """It would be the same again."""
    async with connect("127.0.0.1:1") as client:
        stub = flaky(client, 9, grpc.StatusCode.NOT_FOUND)
        with pytest.raises(WarmlineError, match="NOT_FOUND"):
            await METHODS[method](client)
        assert len(stub.calls) == 1


async def test_an_interrupt_is_not_repeated() -> None:
    """The second could stop a turn that began after the first."""
    async with connect("127.0.0.1:1") as client:
        stub = flaky(client, 9, grpc.StatusCode.UNAVAILABLE)
        with pytest.raises(WarmlineError, match="UNAVAILABLE"):
            await client.interrupt(SESSION)
        assert len(stub.calls) == 1
        assert all(stub.timeouts)


async def test_who_does_not_want_to_wait_is_told_at_once() -> None:
    """And who does is told when the time is over."""
    async with connect("127.0.0.1:1") as client:
        for patience in (0.0, 0.3):
            async with asyncio.timeout(60):
                with pytest.raises(WarmlineError, match="UNAVAILABLE"):
                    await client.session(SESSION, retry_timeout=patience)


async def test_a_restart_goes_unnoticed(tmp_path: Path) -> None:
    """What is asked while the service is away is answered when it is back."""
    with data_directory() as data:
        async with service_in(data, cli=faking(tmp_path)) as service:
            address = f"127.0.0.1:{service.port}"
            async with connect(address) as client, client.chat() as chat:
                await events_of(chat, "hello")
                session_id = chat.session_id
        async with connect(address) as client:
            asking = asyncio.create_task(client.session(session_id))
            deleting = asyncio.create_task(client.delete(session_id))
            async with service_in(data, cli=faking(tmp_path), listen=address):
                await asyncio.wait({asking, deleting}, timeout=20)
                await deleting


async def test_a_removal_whose_answer_was_lost_is_one(tmp_path: Path) -> None:
    """Repeated, it finds the session gone: so it is. The first time that is an error."""
    async with running_client(cli=faking(tmp_path)) as client:
        async with client.chat() as chat:
            await events_of(chat, "hello")
        real = client._sessions.DeleteSession
        lost = 0

        class Lossy:
            """Loses the first answer."""

            async def DeleteSession(self, *args: Any, **kwargs: Any) -> Any:  # noqa: N802  # as in the proto
                nonlocal lost
                answer = await real(*args, **kwargs)
                if not lost:
                    lost += 1
                    raise AioRpcError(grpc.StatusCode.UNAVAILABLE, Metadata(), Metadata())
                return answer

        client._sessions = Lossy()
        await client.delete(chat.session_id)
        assert lost == 1
        with pytest.raises(WarmlineError, match="SESSION_NOT_FOUND"):
            await client.delete(chat.session_id)


async def test_times_are_filters(tmp_path: Path) -> None:
    """With a zone or, in UTC, without one."""
    async with running_client(cli=faking(tmp_path)) as client:
        async with client.chat() as chat:
            await events_of(chat, "hello")
        now = datetime.now(UTC)
        for moment in (
            now + timedelta(seconds=60),
            (now + timedelta(seconds=60)).replace(tzinfo=None),
        ):
            before = client.sessions(updated_before=moment)
            assert [each.id async for each in before] == [chat.session_id]
            assert [each async for each in client.sessions(updated_after=moment)] == []


async def exported(client: Client, target: Path, text: str = "hello") -> pb.Session:
    """A session in which something was said, in a file."""
    async with client.chat() as chat:
        await events_of(chat, text)
        session_id = chat.session_id
    session = await client.export_to(session_id, target)
    assert session.id == session_id
    return session


async def test_an_export_is_a_file_that_anybody_can_read(tmp_path: Path) -> None:
    """A tar archive: what it is as JSON, and what was said line by line."""
    file = tmp_path / "session.tar"
    async with running_client(cli=faking(tmp_path)) as client:
        session = await exported(client, file)
    with tarfile.open(file) as tar:
        assert tar.getnames() == ["session.json", "transcript.jsonl"]
        head = json.load(tar.extractfile("session.json") or io.BytesIO())
        lines = (tar.extractfile("transcript.jsonl") or io.BytesIO()).read().splitlines()
    assert (head["id"], head["title"], head["turnCount"]) == (session.id, "hello", 1)
    said = [json.loads(each)["message"]["content"] for each in lines]
    assert said[0] == "hello"
    assert file.stat().st_mode & 0o77 == 0


async def test_a_file_makes_a_session(tmp_path: Path) -> None:
    """From a path or an open file, as often as it is read."""
    file = tmp_path / "session.tar"
    async with running_client(cli=faking(tmp_path)) as client:
        session = await exported(client, file)
        made = [await client.import_from(file)]
        with file.open("rb") as opened:
            made.append(await client.import_from(opened))
        assert len({session.id, *(each.id for each in made)}) == 3
        for each in made:
            async with client.chat(session_id=each.id) as chat:
                history = json.loads(text_of(await events_of(chat, "!bound")))["history"]
            assert history == ["hello", "!bound"]


async def test_an_export_that_fails_leaves_the_file_as_it_was(tmp_path: Path) -> None:
    """And none where there was none."""
    file, none = tmp_path / "session.tar", tmp_path / "none.tar"
    file.write_bytes(b"precious")
    async with running_client(cli=faking(tmp_path)) as client:
        for target in (file, none):
            with pytest.raises(WarmlineError, match="SESSION_NOT_FOUND"):
                await client.export_to(SESSION, target)
        async with client.chat() as chat:
            with pytest.raises(OSError, match="No such file"):
                await client.export_to(chat.session_id, tmp_path / "nowhere" / "x.tar")
    assert file.read_bytes() == b"precious"
    assert {path.name for path in tmp_path.iterdir()} == {"fake", "session.tar"}


async def test_a_file_that_is_no_export_is_refused(tmp_path: Path) -> None:
    """By the client or by the service, with a word about what is wrong; nothing is made of it."""
    good = tmp_path / "good.tar"
    async with running_client(cli=faking(tmp_path)) as client:
        await exported(client, good)
        whole = good.read_bytes()
        for name, data, match in (
            ("empty", b"", "no export"),
            ("garbage", b"garbage" * 1000, "no export"),
            ("cut in a member", whole[: whole.index(b"transcript.jsonl\0") + 600], "no export"),
            ("cut before one", whole[: whole.index(b"transcript.jsonl\0")], "its end is missing"),
            ("stranger", archived({"passwd": b"root"}), "'passwd' is not what"),
            ("no session", archived({"transcript.jsonl": b"{}"}), "FRAME_OUT_OF_ORDER"),
            ("bad session", archived({"session.json": b"{"}), "no export"),
            ("not text", archived({"session.json": b"\xff"}), "no export"),
            ("bad field", archived({"session.json": b'{"turnCount": "x"}'}), "no export"),
        ):
            file = tmp_path / name
            file.write_bytes(data)
            with pytest.raises(WarmlineError, match=match):
                await client.import_from(file)
        with pytest.raises(OSError, match="No such file"):
            await client.import_from(tmp_path / "missing")
        assert len([each async for each in client.sessions()]) == 1


def archived(members: dict[str, bytes]) -> bytes:
    """An archive with these members."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        for name, data in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return out.getvalue()


@pytest.mark.real_cli
async def test_a_fork_keeps_the_context_at_once() -> None:
    """Also what the real CLI tells of only after the turn: a fork may be made as soon as it has ended."""
    async with running_service() as service, connect(f"127.0.0.1:{service.port}") as client:
        async with client.chat() as chat:
            for number in (1, 2, 3):
                assert f"message {number} of" in text_of(await events_of(chat, "hello"))
                fork = await client.fork(chat.session_id)
                copy = await client.import_(client.export(chat.session_id))
                for made in (fork, copy):
                    async with client.chat(session_id=made.id) as other:
                        answer = text_of(await events_of(other, "and?"))
                        assert f"message {number + 1} of" in answer
                        said = text_of(await events_of(other, "::echo messages"))
                        assert said.count("You said: hello") == number
