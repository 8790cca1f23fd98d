"""A hot process has a message while it is being stored: nothing comes of it before, or if it is not."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from running import events_of, faking, kinds, running_service, text_of, until
from warmline.v1 import events_pb2
from warmline.v1 import session_config_pb2 as config_pb
from warmline_client import Client, Conversation, WarmlineError, connect
from warmline_service.chat._turn import Phase
from warmline_service.errors import Reason
from warmline_service.errors import WarmlineError as WarmlineFault
from warmline_service.server import Service
from warmline_service.sessions.events import InterruptOutcome
from warmline_service.store import Claimed, Store
from warmline_service.worker import TranscriptMirror


class Storing:
    """The store's `accept`, which waits until it is told how it goes."""

    def __init__(self, store: Store) -> None:
        self._accept = store.accept
        self.arrived = asyncio.Event()
        self._go: asyncio.Future[WarmlineFault | None] = asyncio.get_running_loop().create_future()

    async def __call__(self, *args: Any, **more: Any) -> Claimed:
        self.arrived.set()
        error = await self._go
        if error is not None:
            raise error
        return await self._accept(*args, **more)

    def go_on(self) -> None:
        """Store it."""
        self._go.set_result(None)

    def fail(self) -> None:
        """Do not."""
        self._go.set_result(WarmlineFault(Reason.STORAGE_UNAVAILABLE, "down"))


@asynccontextmanager
async def hot(
    directory: Path, **changes: Any
) -> AsyncIterator[tuple[Service, Client, Conversation]]:
    """A conversation whose process has answered "first"."""
    async with (
        running_service(cli=faking(directory), **changes) as service,
        connect(f"127.0.0.1:{service.port}") as client,
        client.chat() as chat,
    ):
        events = await events_of(chat, "first")
        assert text_of(events) == "echo: first"
        yield service, client, chat


def storing(service: Service, monkeypatch: pytest.MonkeyPatch) -> Storing:
    store = service._store
    assert store is not None
    slow = Storing(store)
    monkeypatch.setattr(store, "accept", slow)
    return slow


def live(service: Service, chat: Conversation) -> Any:
    assert service._conversations is not None
    return service._conversations.at_work(chat.session_id)


def asked_by(service: Service, chat: Conversation) -> int:
    """How many requests of the session's process have come to the egress and wait or were answered."""
    assert service._egress is not None
    process = live(service, chat)._runner.process
    account = service._egress._account(process.slot.id)
    return account.meter.requests + account._running


async def test_the_model_is_asked_when_the_message_is_stored(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The process has the message by then, and its request waits. What is told is as it always is."""
    async with hot(tmp_path) as (service, _, chat):
        slow = storing(service, monkeypatch)
        sending = asyncio.create_task(events_of(chat, "second"))
        await until(lambda: slow.arrived.is_set() and asked_by(service, chat) == 2)
        process = live(service, chat)._runner.process
        assert service._egress is not None
        assert service._egress.meter(process.slot.id).requests == 1
        slow.go_on()
        events = await sending
        assert kinds(events)[:2] == ["turn_queued", "turn_started"]
        assert events[0].turn_queued.position == 0
        assert text_of(events) == "echo: second"
        assert events[1].turn_started.latency.start == events_pb2.START_KIND_HOT
        assert live(service, chat)._runner.process is process
        seqs = [event.seq for event in events]
        assert seqs == list(range(seqs[0], seqs[0] + len(seqs)))


async def test_a_message_that_is_not_stored_was_never_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The model is not asked, nothing is told but the failure, and the next process does not know of it."""
    async with hot(tmp_path) as (service, client, chat):
        assert service._egress is not None
        slow = storing(service, monkeypatch)
        process = live(service, chat)._runner.process
        turn = await chat.send("secret", key="k")
        await until(lambda: slow.arrived.is_set() and asked_by(service, chat) == 2)
        slow.fail()
        with pytest.raises(WarmlineError, match="STORAGE_UNAVAILABLE"):
            await turn.completed()
        monkeypatch.undo()
        await until(process.exited.done)
        assert service._egress.meter(process.slot.id).requests == 1
        assert text_of(await events_of(chat, "another")) == "echo: another"
        assert await transcript(service, chat) == ["first", "another"]
        again = await chat.send("secret", key="k")
        assert text_of([event async for event in again]) == "echo: secret"
        told = client.watch(chat.session_id, replay_only=True, kinds=["turn_queued"])
        assert [event.turn_queued.text async for event in told] == ["first", "another", "secret"]


async def transcript(service: Service, chat: Conversation) -> list[str]:
    """What was said to the model, as it is stored."""
    session, runtime = live(service, chat).session, live(service, chat)._runtime
    await runtime.journal.flushed(session)
    lines = await runtime.sessions.transcript(session.tenant, session.id)
    entries = [json.loads(line) for line in lines]
    said = [(each["type"], json.dumps(each["message"])) for each in entries if "message" in each]
    return [
        word
        for kind, text in said
        for word in ("first", "another", "secret", "second")
        if kind == "user" and word in text
    ]


async def test_no_process_is_risked_while_the_store_is_down(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One that fails costs the process; those of the sessions that follow wait for the store to come back."""
    async with hot(tmp_path) as (service, _, chat):
        store = service._store
        assert store is not None

        async def down(*_: object) -> None:
            raise WarmlineFault(Reason.STORAGE_UNAVAILABLE, "down")

        monkeypatch.setattr(store._database, "write", down)
        with pytest.raises(WarmlineFault):
            await store.begin("none")
        process = live(service, chat)._runner.process
        with pytest.raises(WarmlineError, match="STORAGE_UNAVAILABLE"):
            await (await chat.send("refused")).completed()
        monkeypatch.undo()
        assert text_of(await events_of(chat, "second")) == "echo: second"
        assert live(service, chat)._runner.process is process


async def test_sending_again_costs_no_process(tmp_path: Path) -> None:
    """A key that only the store knows, another session's, does; the session goes on all the same."""
    async with hot(tmp_path) as (service, client, chat):
        process = live(service, chat)._runner.process
        for _ in range(2):
            again = await chat.send("second", key="k")
            assert text_of([event async for event in again]) == "echo: second"
        assert live(service, chat)._runner.process is process
        async for _ in client.ask("elsewhere", key="other"):
            pass
        with pytest.raises(WarmlineError, match="IDEMPOTENCY_CONFLICT"):
            await (await chat.send("elsewhere", key="other")).completed()
        assert text_of(await events_of(chat, "third")) == "echo: third"


@pytest.mark.parametrize("stored", [True, False])
async def test_who_interrupts_meanwhile_stops_the_turn_if_there_is_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, stored: bool
) -> None:
    """Stored, it ends as one that was interrupted, and its process is kept."""
    async with hot(tmp_path) as (service, _, chat):
        slow = storing(service, monkeypatch)
        turn = await chat.send("!hang")
        await slow.arrived.wait()
        running = live(service, chat)._queue._running
        await until(lambda: running.phase is Phase.RUNNING)
        process = live(service, chat)._runner.process
        stopping = asyncio.create_task(live(service, chat).interrupt(None))
        await asyncio.sleep(0)
        if stored:
            slow.go_on()
            assert await stopping == (InterruptOutcome.STOPPED, running.id)
            ended = (await turn.completed()).stop_reason
            assert ended == events_pb2.STOP_REASON_INTERRUPTED
            assert live(service, chat)._runner.process is process
        else:
            slow.fail()
            assert await stopping == (InterruptOutcome.NOTHING_RUNNING, "")
            with pytest.raises(WarmlineError, match="STORAGE_UNAVAILABLE"):
                await turn.completed()
        monkeypatch.undo()
        assert text_of(await events_of(chat, "then")) == "echo: then"


async def test_a_process_that_ends_meanwhile_is_replaced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The turn is run by another one, once it is stored; the message was said once."""
    async with hot(tmp_path) as (service, _, chat):
        slow = storing(service, monkeypatch)
        sending = asyncio.create_task(events_of(chat, "second"))
        await until(lambda: slow.arrived.is_set() and asked_by(service, chat) == 2)
        process = live(service, chat)._runner.process
        await until(lambda: any(isinstance(each, TranscriptMirror) for each in process._sink._kept))
        process.give_up("test")
        await until(process.exited.done)
        slow.go_on()
        events = await sending
        assert text_of(events) == "echo: second"
        assert kinds(events).count("turn_completed") == 1
        assert await transcript(service, chat) == ["first", "second"]


async def test_no_other_process_is_taken_for_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where the session's own has just ended, the turn waits until it is stored, and so do the spares."""
    async with hot(tmp_path) as (service, _, chat):
        slow = storing(service, monkeypatch)
        runner, pool = live(service, chat)._runner, service._pool
        assert pool is not None
        own, hold_to_policy = runner.process, runner._provision._hold_to_policy

        async def end_first() -> None:
            own.give_up("test")
            await until(own.exited.done)
            await hold_to_policy()

        monkeypatch.setattr(runner._provision, "_hold_to_policy", end_first)
        turn = await chat.send("refused")
        await slow.arrived.wait()
        await until(own.exited.done)
        slow.fail()
        with pytest.raises(WarmlineError, match="STORAGE_UNAVAILABLE"):
            await turn.completed()
        assert runner.process is own
        monkeypatch.undo()
        assert text_of(await events_of(chat, "second")) == "echo: second"
        assert await transcript(service, chat) == ["first", "second"]


async def test_a_session_that_nobody_uses_any_more_is_let_go(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its stream and its process went while the message was on its way into the store."""
    async with hot(tmp_path) as (service, client, chat):
        assert service._conversations is not None
        async with client.chat(session_id=chat.session_id, takeover=True) as other:
            slow = storing(service, monkeypatch)
            await other.send("refused")
            await slow.arrived.wait()
        conversation = live(service, chat)
        await until(lambda: conversation._stream is None)
        process = conversation._runner.process
        process.give_up("test")
        await until(process.exited.done)
        slow.fail()
        await until(lambda: live(service, chat) is None)


async def test_the_store_may_take_longer_than_a_turn_may_be_silent(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What it waits for there is not its own silence."""
    async with hot(tmp_path, limits={"stall_timeout": 1, "turn_timeout": 1}) as (service, _, chat):
        slow = storing(service, monkeypatch)
        sending = asyncio.create_task(events_of(chat, "second"))
        await slow.arrived.wait()
        await asyncio.sleep(1.2)
        slow.go_on()
        assert text_of(await sending) == "echo: second"


HOOK = {"hooks": [{"type": "command", "command": "true"}]}


@pytest.mark.parametrize("hooks", [True, False])
async def test_what_acts_without_the_model_waits_until_it_is_stored(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, hooks: bool
) -> None:
    """A command of the CLI's, and hooks."""
    config = config_pb.SessionConfig()
    if hooks:
        config.settings.update({"hooks": {"UserPromptSubmit": [HOOK]}})
    async with (
        hot(tmp_path, limits={"caller_commands": True}) as (service, client, _),
        client.chat(config=config) as chat,
    ):
        await events_of(chat, "first")
        slow = storing(service, monkeypatch)
        turn = await chat.send("/clear" if not hooks else "second", interpret=not hooks)
        await slow.arrived.wait()
        assert live(service, chat)._queue.quiet
        slow.go_on()
        await turn.completed()
