"""Sending is idempotent: a message that was sent before attaches to its turn, and nothing runs twice."""

import asyncio
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
    text_of,
    until,
)
from warmline.v1 import events_pb2
from warmline_client import Client, WarmlineError, connect
from warmline_service.errors import Reason
from warmline_service.errors import WarmlineError as WarmlineFault
from warmline_service.store import Claimed, Query


async def asked(client: Client, text: str, key: str, **more: Any) -> list[events_pb2.Event]:
    async with asyncio.timeout(90):
        return [event async for event in client.ask(text, key=key, **more)]


def once(events: list[events_pb2.Event], text: str) -> None:
    """The turn was told whole: each delta once, one end."""
    assert text_of(events) == text
    assert kinds(events).count("turn_completed") == 1
    numbers = [event.seq for event in events if event.seq]
    assert numbers == sorted(set(numbers))


async def said(client: Client, session_id: str) -> list[str]:
    """The texts that the fake CLI has been told in a session."""
    queued = client.watch(session_id, replay_only=True, kinds=["turn_queued"])
    return [event.turn_queued.text async for event in queued]


async def test_a_key_attaches_to_a_turn_that_has_ended(tmp_path: Path) -> None:
    """In the same stream, in another one, and by Ask; the whole turn is told again."""
    async with running_client(cli=faking(tmp_path)) as client:
        async with client.chat() as chat:
            first = [event async for event in await chat.send("hello", key="k")]
            again = [event async for event in await chat.send("hello", key="k")]
            assert kinds(again)[0] == "turn_attached"
            once(again, "echo: hello")
            assert {e.turn_id for e in again} == {e.turn_id for e in first}
            session_id = chat.session_id
        once(await asked(client, "hello", "k"), "echo: hello")
        once(await asked(client, "hello", "k", session_id=session_id), "echo: hello")
        async with client.chat(session_id=session_id) as other:
            once([event async for event in await other.send("hello", key="k")], "echo: hello")
        assert await said(client, session_id) == ["hello"]


async def test_a_key_attaches_to_a_turn_that_runs(tmp_path: Path) -> None:
    """It is told from its first event, and goes on live, beside the stream that has the session."""
    async with running_client(cli=faking(tmp_path)) as client, client.chat() as chat:
        turn = await chat.send("!deltas 30 20", key="k")
        async for event in turn:
            if event.HasField("text_delta"):
                break
        asking = asyncio.create_task(asked(client, "!deltas 30 20", "k"))
        again = await chat.send("!deltas 30 20", key="k")
        once([event async for event in again], "x" * 240)
        once(await asking, "x" * 240)
        assert await said(client, chat.session_id) == ["!deltas 30 20"]


async def test_a_key_attaches_to_a_turn_that_has_failed(tmp_path: Path) -> None:
    """The failure is told again; to try again takes another key."""
    async with running_client(cli=faking(tmp_path)) as client, client.chat() as chat:
        for _ in range(2):
            turn = await chat.send("!die", key="k")
            with pytest.raises(WarmlineError, match="CLI_CRASHED"):
                await asyncio.wait_for(turn.completed(), 20)
        assert await said(client, chat.session_id) == ["!die"]


async def test_a_key_with_other_content_is_refused(tmp_path: Path) -> None:
    """Without harm to the stream, and in another session as well."""
    async with running_client(cli=faking(tmp_path)) as client, client.chat() as chat:
        await (await chat.send("hello", key="k")).completed()
        turn = await chat.send("something else", key="k")
        with pytest.raises(WarmlineError, match="IDEMPOTENCY_CONFLICT"):
            await asyncio.wait_for(turn.completed(), 60)
        with pytest.raises(WarmlineError, match="IDEMPOTENCY_CONFLICT"):
            await asked(client, "something else", "k")
        async with client.chat() as other:
            turn = await other.send("hello", key="k")
            with pytest.raises(WarmlineError, match="IDEMPOTENCY_CONFLICT"):
                await asyncio.wait_for(turn.completed(), 60)
            once(await events_of(other, "goes on"), "echo: goes on")


async def test_the_same_opening_gives_the_same_session(tmp_path: Path) -> None:
    """A second session is not made."""
    async with running_client(cli=faking(tmp_path)) as client:
        ids = []
        for _ in range(2):
            chat = client.chat(takeover=True)
            chat._opening.idempotency_key = "opening"
            async with chat:
                ids.append(chat.session_id)
        assert ids[0] == ids[1]


async def test_keys_hold_after_a_restart(tmp_path: Path) -> None:
    """A message that was answered by a service that is gone runs no second time."""
    fake = faking(tmp_path)
    with data_directory() as data:
        async with service_in(data, cli=fake) as service:
            async with connect(f"127.0.0.1:{service.port}") as client:
                first = await asked(client, "hello", "k")
        async with service_in(data, cli=fake) as service:
            async with connect(f"127.0.0.1:{service.port}") as client:
                again = await asked(client, "hello", "k")
                once(again, "echo: hello")
                assert again[-1].seq == first[-1].seq
                assert await said(client, first[-1].session_id) == ["hello"]


@pytest.mark.parametrize(("text", "end"), [("hello", "turn_completed"), ("!die", "turn_failed")])
async def test_a_key_of_a_turn_whose_events_are_gone_tells_how_it_ended(
    tmp_path: Path, text: str, end: str
) -> None:
    """By Ask and in a stream: that its events are not kept, and its end; nothing runs again."""
    with data_directory() as data:
        async with (
            service_in(data, cli=faking(tmp_path)) as service,
            connect(f"127.0.0.1:{service.port}") as client,
            client.chat() as chat,
        ):
            first = [event async for event in await chat.send(text, key="k")]
            store = service._store
            assert store is not None
            row = await store.session("dev", chat.session_id)
            await store.expire(row, first[-1].seq)
            for again in (
                await asked(client, text, "k"),
                [event async for event in await chat.send(text, key="k")],
            ):
                assert kinds(again) == ["turn_attached", "notice", end]
                assert {event.turn_id for event in again} == {first[0].turn_id}
            assert [turn.id for turn in await store.turns(row.id)] == [first[0].turn_id]
            once([event async for event in await chat.send("next")], "echo: next")


async def test_a_refused_message_leaves_nothing_behind(tmp_path: Path) -> None:
    """Its failure is told once and not stored; sent again under its key it runs."""
    limits = {"queued_messages": 1}
    async with running_client(cli=faking(tmp_path), limits=limits) as client, client.chat() as chat:
        running = await chat.send("!hang")
        await anext(aiter(running))
        waiting, refused = await chat.send("next"), await chat.send("third", key="k")
        events = [event async for event in refused]
        assert [(event.seq, event.WhichOneof("kind")) for event in events] == [(0, "turn_failed")]
        await chat.interrupt()
        await waiting.completed()
        once([event async for event in await chat.send("third", key="k")], "echo: third")
        told = [event async for event in client.watch(chat.session_id, replay_only=True)]
        assert events[0].turn_id not in {event.turn_id for event in told}


async def test_a_message_that_was_stored_and_refused_can_be_sent_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The store did it and its answer was lost: the message runs when it is sent again, others too."""
    async with running_service(cli=faking(tmp_path)) as service:
        store = service._store
        assert store is not None
        accept = store.accept

        async def lose_the_answer(*args: Any, **more: Any) -> None:
            await accept(*args, **more)
            raise WarmlineFault(Reason.STORAGE_UNAVAILABLE, "lost")

        async with connect(f"127.0.0.1:{service.port}") as client, client.chat() as chat:
            monkeypatch.setattr(store, "accept", lose_the_answer)
            with pytest.raises(WarmlineError, match="STORAGE_UNAVAILABLE"):
                await (await chat.send("hello", key="k")).completed()
            monkeypatch.undo()
            once(await events_of(chat, "another"), "echo: another")
            once([event async for event in await chat.send("hello", key="k")], "echo: hello")
            assert await said(client, chat.session_id) == ["another", "hello"]
            (row,) = await store.sessions("dev", Query())
            assert row.turn_count == 2


@pytest.mark.parametrize("stored", [True, False])
async def test_who_goes_while_a_message_is_accepted_leaves_one_that_runs_or_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, stored: bool
) -> None:
    """Stored, it runs to its end with nobody there; refused, it is nowhere. Asked again, it ran once."""
    async with running_service(cli=faking(tmp_path)) as service:
        store, conversations = service._store, service._conversations
        assert store is not None
        assert conversations is not None
        accept, arrived, go = store.accept, asyncio.Event(), asyncio.Event()

        async def slow(*args: Any, **more: Any) -> Claimed:
            arrived.set()
            await go.wait()
            if not stored:
                raise WarmlineFault(Reason.STORAGE_UNAVAILABLE, "down")
            return await accept(*args, **more)

        monkeypatch.setattr(store, "accept", slow)
        async with connect(f"127.0.0.1:{service.port}") as client:
            asking = asyncio.create_task(asked(client, "hello", "k"))
            await asyncio.wait_for(arrived.wait(), 60)
            (row,) = await store.sessions("dev", Query())
            live = conversations.at_work(row.id)
            assert live is not None
            asking.cancel()
            await until(lambda: live._stream is None)
            go.set()
            await until(lambda: not conversations._tasks)
            monkeypatch.undo()
            assert service._journal is not None
            await service._journal.flushed(live.session)
            assert [turn.state for turn in await store.turns(row.id)] == ["completed"] * stored
            assert await said(client, row.id) == ["hello"] * stored
            once(await asked(client, "hello", "k", session_id=row.id), "echo: hello")
            assert await said(client, row.id) == ["hello"]
            assert await store.unfinished(row.id) == []
