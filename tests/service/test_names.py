"""The names of sessions that are at work: kept in memory, and in the store for everybody else."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from parking import client_of, failure, say
from running import data_directory, faking, service_in, until
from warmline_client import Client, Conversation
from warmline_service.errors import Reason
from warmline_service.errors import WarmlineError as Fault
from warmline_service.server import Service


@pytest.fixture
async def service(tmp_path: Path) -> AsyncIterator[Service]:
    """A service with the fake CLI."""
    with data_directory() as data:
        async with service_in(data, cli=faking(tmp_path)) as service:
            yield service


async def named(client: Client, name: str) -> str:
    """The id of a session that has a name."""
    async with client.chat() as chat:
        await say(chat, "one")
        await name_it(chat, name)
        return chat.session_id


async def name_it(chat: Conversation, name: str) -> None:
    """Give a session a name, and wait until it has it."""
    await chat.checkpoint(name)
    await until(lambda: any(event.HasField("checkpointed") for event in chat.notices))


async def test_a_message_that_could_not_be_stored_leaves_the_name(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever found the session sends it again, and finds it again."""

    async def down(*_: Any, **__: Any) -> None:
        raise Fault(Reason.STORAGE_UNAVAILABLE, "down")

    async with client_of(service) as client:
        session_id = await named(client, "n")
        for method in ("accept", "take_named"):
            monkeypatch.setattr(service._store, method, down)
        async with client.chat(continuation="n") as chat:
            assert chat.opened.continued
            assert failure(await say(chat, "two")).reason == "STORAGE_UNAVAILABLE"
        monkeypatch.undo()
        async with client.chat(continuation="n") as chat:
            assert (chat.opened.continued, chat.session_id) == (True, session_id)
            assert (await say(chat, "two"))[-1].HasField("turn_completed")
        async with client.chat(continuation="n") as chat:
            assert not chat.opened.continued


async def test_the_session_that_was_given_a_name_last_is_found(service: Service) -> None:
    """Also where it is at work no more, and the one before is."""
    conversations = service._conversations
    assert conversations is not None
    async with client_of(service) as client:
        first, last = await named(client, "n"), await named(client, "n")
        conversations._runtime.pool.forget(last)
        await until(lambda: conversations.at_work(last) is None)
        for expected in (last, first):
            async with client.chat(continuation="n") as chat:
                assert chat.session_id == expected


async def test_a_name_that_is_stored_too_late_is_not_kept_here(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The session was given up meanwhile: who has it next says what its names are."""
    store, conversations = service._store, service._conversations
    assert store is not None
    assert conversations is not None
    name, stored = store.name, asyncio.Event()

    async def late(*arguments: Any) -> None:
        await name(*arguments)
        conversations.fence()
        stored.set()

    async with client_of(service) as client:
        async with client.chat(reconnect_timeout=0) as chat:
            await say(chat, "one")
            monkeypatch.setattr(store, "name", late)
            await chat.checkpoint("n")
            await asyncio.wait_for(stored.wait(), 60)
            monkeypatch.undo()
        async with client.chat(session_id=chat.session_id) as again:
            await say(again, "two")
            # A turn has used the name up, and nobody may be told of a session that is in use.
            async with client.chat(continuation="n") as other:
                assert not other.opened.continued
