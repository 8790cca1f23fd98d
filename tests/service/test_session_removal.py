"""A session that was deleted is gone everywhere, and another tenant's was never there."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from running import (
    data_directory,
    events_of,
    faking,
    kinds,
    running_client,
    running_service,
    service_in,
    until,
)
from tenancies import tenant, two_tenants
from warmline.v1 import chat_service_pb2 as chat_pb
from warmline.v1 import session_service_pb2 as session_pb
from warmline_client import Client, Conversation, WarmlineError, connect
from warmline_service.sessions import Session
from warmline_service.store import TurnRow

NOBODYS = "01234567-89ab-cdef-0123-456789abcdef"

# Every way to name a session.
METHODS: dict[str, Callable[[Client, str], Awaitable[Any]]] = {
    "Chat": lambda client, name: client.chat(session_id=name).__aenter__(),
    "Chat.fork": lambda client, name: client.chat(
        fork=chat_pb.ForkFrom(session_id=name)
    ).__aenter__(),
    "Ask": lambda client, name: anext(client.ask("hi", session_id=name)),
    "Watch": lambda client, name: anext(client.watch(name)),
    "GetSession": lambda client, name: client.session(name),
    "ForkSession": lambda client, name: client.fork(name),
    "InterruptTurn": lambda client, name: client.interrupt(name),
    "ExportSession": lambda client, name: anext(client.export(name)),
    "DeleteSession": lambda client, name: client.delete(name),
}


async def answers(client: Client, session_id: str) -> dict[str, tuple[Any, ...]]:
    """How every method refuses a session."""
    found: dict[str, tuple[Any, ...]] = {}
    for name, method in METHODS.items():
        with pytest.raises(WarmlineError) as caught:
            await method(client, session_id)
        error = caught.value
        found[name] = (error.code, error.reason, error.message, error.metadata, error.retry_after)
    return found


async def test_anothers_session_answers_like_none(tmp_path: Path) -> None:
    """On every method, to the word; it is in no list, and it is none the worse for it."""
    async with two_tenants(tmp_path) as (address, first, second):
        async with connect(address, api_key=first) as owner, owner.chat() as chat:
            await events_of(chat, "mine")
            turn = await chat.send("!hang")
            await anext(aiter(turn))
            async with connect(address, api_key=second) as stranger:
                found = await answers(stranger, chat.session_id)
                assert found == await answers(stranger, NOBODYS)
                assert {each[1] for each in found.values()} == {"SESSION_NOT_FOUND"}
                assert [each async for each in stranger.sessions()] == []
                origin = stranger.sessions(forked_from=chat.session_id)
                assert [each async for each in origin] == []
            await chat.interrupt()
            await turn.completed()
            assert [each.id async for each in owner.sessions()] == [chat.session_id]


async def test_a_deleted_session_is_gone_everywhere(tmp_path: Path) -> None:
    """Every method says so; nothing of it is left where content is kept, and others keep theirs."""
    with data_directory() as data:
        async with (
            service_in(data, cli=faking(tmp_path), store={"spill_bytes": 1024}) as service,
            connect(f"127.0.0.1:{service.port}") as client,
        ):
            stays = await large(client, service)
            goes = await large(client, service)
            assert stored(data, goes)
            await client.delete(goes)
            found = await answers(client, goes)
            assert found == await answers(client, NOBODYS)
            assert [each.id async for each in client.sessions()] == [stays]
        # Its process ends later than it does, with files that might be kept.
        assert stored(data, stays)
        assert not stored(data, goes)


async def large(client: Client, service: Any) -> str:
    """A session with events, a transcript and files that are not kept in the database."""
    async with client.chat() as chat:
        await events_of(chat, "!big 100000")
        live = service._conversations.at_work(chat.session_id)
        (live.work / "file").write_bytes(b"x" * 5000)
        return chat.session_id


def stored(data: Path, session_id: str) -> list[Path]:
    """The blobs of a session."""
    return [path for path in (data / "blobs").rglob("*") if session_id in str(path)]


async def test_a_deleted_session_is_gone_after_a_restart(tmp_path: Path) -> None:
    """Nothing that was on its way brings it back."""
    with data_directory() as data:
        async with service_in(data, cli=faking(tmp_path)) as service:
            async with connect(f"127.0.0.1:{service.port}") as client:
                session_id = await large(client, service)
                await client.delete(session_id)
        async with service_in(data, cli=faking(tmp_path)) as service:
            async with connect(f"127.0.0.1:{service.port}") as client:
                assert [each async for each in client.sessions()] == []
                assert (await answers(client, session_id))["Chat"][1] == "SESSION_NOT_FOUND"
        assert not stored(data, session_id)


async def test_whoever_is_attached_is_told_of_the_end(tmp_path: Path) -> None:
    """A running turn is stopped; its stream, one that was taken over and an observer end by name."""
    async with running_client(cli=faking(tmp_path)) as client:
        first = await client.chat().__aenter__()
        async with client.chat(session_id=first.session_id, takeover=True) as chat:
            turn = await chat.send("!hang")
            await anext(aiter(turn))
            watching = asyncio.create_task(watched(client, chat.session_id))
            await asyncio.sleep(0.1)
            await client.delete(chat.session_id)
            async with asyncio.timeout(60):
                for waiting in (turn.completed(), watching):
                    with pytest.raises(WarmlineError, match="SESSION_NOT_FOUND"):
                        await waiting
                await broken(first)
                await broken(chat)
        await first.__aexit__(None, None, None)


async def watched(client: Client, session_id: str) -> list[str]:
    """All that an observer is told."""
    return kinds([event async for event in client.watch(session_id)])


async def broken(chat: Conversation) -> None:
    """Wait until a conversation knows that it has ended, and see why."""
    await until(lambda: chat.broken)
    with pytest.raises(WarmlineError, match="SESSION_NOT_FOUND"):
        await chat.send("hello?")


async def test_nobody_gets_in_while_a_session_is_deleted(tmp_path: Path) -> None:
    """Whoever comes while its turn is being stopped is refused at once, and is not left waiting."""
    async with running_client(cli=faking(tmp_path)) as client, client.chat() as chat:
        turn = await chat.send("!deaf")
        async for event in turn:
            if event.HasField("text_delta"):
                break
        deleting = asyncio.create_task(client.delete(chat.session_id))
        await until(lambda: chat.broken)
        assert not deleting.done()
        async with asyncio.timeout(60):
            with pytest.raises(WarmlineError, match="SESSION_NOT_FOUND"):
                await client.chat(session_id=chat.session_id, takeover=True).__aenter__()
            await deleting


@pytest.mark.parametrize("first", ["delete", "open"])
async def test_who_waits_for_a_session_that_is_deleted_learns_of_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, first: str
) -> None:
    """Both come while it is being loaded: whoever opens it is told, at once or in the stream."""
    async with running_service(cli=faking(tmp_path)) as service:
        async with connect(f"127.0.0.1:{service.port}") as client:
            session_id = (await client.import_(only_a_session())).id
            assert service._conversations is not None
            sessions = service._conversations._runtime.sessions
            load, loading, go = sessions.load, asyncio.Event(), asyncio.Event()

            async def slow(tenant: str, name: str) -> tuple[Session, list[TurnRow]]:
                loading.set()
                await go.wait()
                return await load(tenant, name)

            monkeypatch.setattr(sessions, "load", slow)
            both = [client.delete(session_id), refused(client, session_id)]
            if first == "open":
                both.reverse()
            waiting = [asyncio.create_task(each) for each in both]
            await asyncio.wait_for(loading.wait(), 60)
            await asyncio.wait(waiting, timeout=0.2)
            assert not any(task.done() for task in waiting)
            go.set()
            async with asyncio.timeout(60):
                await asyncio.gather(*waiting)
            assert [each.id async for each in client.sessions()] == []
            assert service._conversations.at_work(session_id) is None


async def only_a_session() -> AsyncIterator[session_pb.ImportSessionRequest]:
    """A session that nobody has opened yet."""
    yield session_pb.ImportSessionRequest(session=session_pb.Session(title="new"))


async def refused(client: Client, session_id: str) -> None:
    """Open a session that is not there, or not for long."""
    chat = client.chat(session_id=session_id)
    try:
        await chat.__aenter__()
    except WarmlineError as error:
        assert error.reason == "SESSION_NOT_FOUND"  # noqa: PT017  # one of two ways to learn of it
    else:
        await broken(chat)
        await chat.__aexit__(None, None, None)


async def test_it_can_be_deleted_by_two_at_once(tmp_path: Path) -> None:
    """Neither of them fails for the other's sake."""
    async with running_client(cli=faking(tmp_path)) as client, client.chat() as chat:
        await events_of(chat, "hello")
        outcomes = await asyncio.gather(
            *(client.delete(chat.session_id) for _ in range(4)), return_exceptions=True
        )
    reasons = {getattr(each, "reason", each) for each in outcomes}
    assert reasons <= {None, "SESSION_NOT_FOUND"}
    assert None in reasons


async def test_reading_needs_less_than_changing(tmp_path: Path) -> None:
    """A key for reading lists, shows and exports; it changes nothing."""
    acme, key = tenant("acme")
    reader, reading = tenant("acme", scopes=["read"])
    acme["keys"] += reader["keys"]
    async with running_service(tenants=[acme], cli=faking(tmp_path)) as service:
        address = f"127.0.0.1:{service.port}"
        async with connect(address, api_key=key) as client, client.chat() as chat:
            await events_of(chat, "hello")
            session_id = chat.session_id
        async with connect(address, api_key=reading) as client:
            assert [each.id async for each in client.sessions()] == [session_id]
            assert (await client.session(session_id)).title == "hello"
            parts = [part async for part in client.export(session_id)]
            assert parts[0].session.id == session_id
            for method in ("ForkSession", "InterruptTurn", "DeleteSession"):
                with pytest.raises(WarmlineError, match="POLICY_DENIED"):
                    await METHODS[method](client, session_id)
            with pytest.raises(WarmlineError, match="POLICY_DENIED"):
                await client.import_(client.export(session_id))
