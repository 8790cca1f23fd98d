"""The client keeps turns apart, bounds what it holds, and never leaves anybody waiting."""

import asyncio
import os
import signal
import sys
from asyncio.subprocess import PIPE
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any, cast

import fake_cli
import grpc
import pytest
from chaos.proxy import tcp_proxy
from running import events_of, kinds, running_client, running_service, text_of, until
from warmline.v1 import chat_service_pb2 as chat_pb
from warmline.v1 import events_pb2 as pb
from warmline_client import (
    Client,
    Conversation,
    Turn,
    WarmlineError,
    _conversation,
    connect,
)
from warmline_client._call import ChatCall
from warmline_client.terminal._prompt import interrupting

WARMLINE = str(Path(sys.executable).parent / "warmline")


def faking(directory: Path, **scenario: Any) -> dict[str, Any]:
    """Settings of a service whose CLI is the fake one."""
    return {"path": fake_cli.install(directory / "fake", **scenario), "interrupt_timeout": 1}


async def test_an_interrupt_that_is_given_up_breaks_nothing(tmp_path: Path) -> None:
    """Its result comes all the same, and is not taken for that of the next."""
    async with running_client(cli=faking(tmp_path)) as client, client.chat() as chat:
        turn = await chat.send("!deaf")
        await until_text(turn)
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(chat.interrupt(), 0.1)
        async with asyncio.timeout(20):
            with pytest.raises(WarmlineError, match="did not stop when interrupted"):
                await turn.completed()
            after = await chat.interrupt()
        assert after.outcome == pb.InterruptResult.OUTCOME_NOTHING_RUNNING
        assert text_of(await events_of(chat, "go on")) == "echo: go on"


async def until_text(turn: Turn) -> None:
    """Read a turn up to its first text."""
    async for event in turn:
        if event.HasField("text_delta"):
            return


async def test_a_result_that_nobody_waits_for_breaks_nothing(tmp_path: Path) -> None:
    """The result of an interrupt of an earlier stream can come to this one."""
    async with running_client(cli=faking(tmp_path)) as client:
        async with client.chat() as first:
            await until_text(await first.send("!deaf"))
            interrupting = asyncio.create_task(first.interrupt())
            await asyncio.sleep(0.2)
            first.cancel()
            with pytest.raises(WarmlineError, match="CANCELLED"):
                await asyncio.wait_for(interrupting, 60)
        async with again(client, first.session_id) as second:
            assert text_of(await events_of(second, "go on")) == "echo: go on"


@asynccontextmanager
async def again(client: Client, session_id: str) -> AsyncIterator[Conversation]:
    """Go on with a session, as soon as the service knows that its last stream is gone."""
    async with AsyncExitStack() as stack:
        opened: list[Conversation] = []
        async with asyncio.timeout(60):
            while not opened:
                with busy():
                    chat = client.chat(session_id=session_id)
                    opened.append(await stack.enter_async_context(chat))
                await asyncio.sleep(0.02)
        yield opened[0]


@contextmanager
def busy() -> Iterator[None]:
    """SESSION_BUSY is to be tried again."""
    try:
        yield
    except WarmlineError as error:
        if error.reason != "SESSION_BUSY":
            raise


async def test_a_fault_of_the_client_reaches_whoever_waits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A turn and an interrupt end in the same error, and so does whatever is said afterwards."""
    async with running_client(cli=faking(tmp_path)) as client, client.chat() as chat:

        def fail(event: pb.Event) -> None:
            raise ZeroDivisionError("oh")

        monkeypatch.setattr(chat, "_take", fail)
        turn = await chat.send("hi")
        for waiting in (turn.completed(), chat.interrupt(), chat.send("more")):
            with pytest.raises(
                WarmlineError, match="The client failed: ZeroDivisionError"
            ) as caught:
                await asyncio.wait_for(waiting, 60)
            assert (caught.value.code, caught.value.reason) == (grpc.StatusCode.INTERNAL, "")
        assert chat.broken


async def test_many_may_speak_at_once(tmp_path: Path) -> None:
    """Messages and interrupts of several tasks go one after another, each gets its own answer."""
    limits = {"queued_messages": 100}
    async with running_client(cli=faking(tmp_path), limits=limits) as client, client.chat() as chat:
        texts = [f"{index} " + "x" * 200_000 for index in range(20)]
        async with asyncio.timeout(60), asyncio.TaskGroup() as group:
            turns = [group.create_task(chat.send(text)) for text in texts]
            interrupts = [group.create_task(chat.interrupt()) for _ in range(5)]
        for text, turn in zip(texts, turns, strict=True):
            completed = await asyncio.wait_for(turn.result().completed(), 90)
            if completed.stop_reason != pb.STOP_REASON_INTERRUPTED:
                assert completed.result == f"echo: {text}"
        assert all(each.result().outcome for each in interrupts)


async def test_writes_do_not_overlap() -> None:
    """A call takes one write at a time, and the turns wait in the order of the writes."""

    class Call:
        """One that is slow to write."""

        busy = False
        frames: list[str] = []  # noqa: RUF012  # one call only

        async def write(self, frame: chat_pb.ChatRequest) -> None:
            """Fail where there is a write already."""
            assert not self.busy
            self.busy = True
            await asyncio.sleep(0.01)
            self.frames.append(frame.message.text or "interrupt")
            self.busy = False

    call = Call()
    chat = Conversation(lambda: None, chat_pb.Open())
    chat._call = ChatCall(call)
    sending = [asyncio.create_task(chat.send(str(index))) for index in range(3)]
    interrupting = asyncio.create_task(chat.interrupt())
    turns = await asyncio.gather(*sending)
    await until(lambda: len(call.frames) == 4)
    assert call.frames == ["0", "1", "2", "interrupt"]
    assert list(chat._unnamed) == [turn.key for turn in turns]  # nothing else tells the order
    interrupting.cancel()


async def test_a_turn_from_before_the_stream_is_not_taken_for_a_new_one(tmp_path: Path) -> None:
    """Its events are among the notices; the new turn has its own alone."""
    async with running_client(cli=faking(tmp_path)) as client:
        async with client.chat() as first:
            old = await first.send("!deltas 60 20")
            await until_text(old)
            first.cancel()
        async with again(client, first.session_id) as second:
            turn = await second.send("new")
            async with asyncio.timeout(20):
                events = [event async for event in turn]
            assert turn.id != old.id
            assert {event.turn_id for event in events} == {turn.id}
            assert text_of(events) == "echo: new"
            assert kinds(events)[0] == "turn_queued"
            earlier = [event for event in second.notices if event.turn_id == old.id]
            assert kinds(earlier)[-1] == "turn_completed"


async def test_a_refused_message_has_its_turn(tmp_path: Path) -> None:
    """QUEUE_FULL comes as a first event, and goes to the message that it is about."""
    limits = {"queued_messages": 1}
    async with running_client(cli=faking(tmp_path), limits=limits) as client, client.chat() as chat:
        running = await chat.send("!hang")
        await until_text(running)
        waiting, refused = await chat.send("next"), await chat.send("too many")
        with pytest.raises(WarmlineError, match="QUEUE_FULL"):
            await asyncio.wait_for(refused.completed(), 60)
        await chat.interrupt()
        assert (await asyncio.wait_for(waiting.completed(), 60)).result == "echo: next"


async def test_events_that_nobody_reads_are_bounded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Above the limit the conversation breaks, and says so; what is read does not count."""
    monkeypatch.setattr(_conversation, "_UNREAD_BYTES", 1_000_000)
    async with (
        running_client(cli=faking(tmp_path)) as client,
        client.chat(detail=chat_pb.DETAIL_TEXT) as chat,
    ):
        # The text comes twice, in pieces and whole.
        events = await events_of(chat, "!deltas 100 5 6000")
        assert sum(event.ByteSize() for event in events) > 1_000_000
        assert not chat.broken
        turn = await chat.send("!deltas 400 2 6000")
        await until(lambda: chat.broken)
        assert 1_000_000 < turn.unread_bytes < 1_100_000
        with pytest.raises(WarmlineError, match="1000000 bytes") as caught:
            await asyncio.wait_for(turn.completed(), 60)
        assert caught.value.code is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert caught.value.reason == ""
        assert turn.unread_bytes == 0
        with pytest.raises(WarmlineError, match="1000000 bytes"):
            await chat.send("more")


async def test_lines_from_a_pipe_are_answered_while_it_is_open(tmp_path: Path) -> None:
    """Two lines written at once are two turns; a last line needs no end of its own."""
    async with running_service(cli=faking(tmp_path)) as service:
        arguments = ["chat", "-t", f"127.0.0.1:{service.port}"]
        chat = await asyncio.create_subprocess_exec(
            WARMLINE, *arguments, stdin=PIPE, stdout=PIPE, stderr=PIPE
        )
        assert chat.stdin is not None
        assert chat.stdout is not None
        chat.stdin.write(b"one\ntwo \xc3\xa9\r\n")
        async with asyncio.timeout(90):
            # Each is echoed with the end of its line.
            seen = await chat.stdout.readuntil(b"one\n\n") + await chat.stdout.readuntil(b"\n\n")
            assert seen.decode() == "echo: one\n\necho: two é\n\n"
            out, err = await chat.communicate(b"three")
    assert (chat.returncode, out) == (0, b"echo: three\n"), err


async def test_lines_from_a_file_are_turns(tmp_path: Path) -> None:
    """A file cannot be watched, and need not be."""
    said = tmp_path / "said"
    said.write_text("one\ntwo")
    async with running_service(cli=faking(tmp_path)) as service:
        arguments = ["chat", "-t", f"127.0.0.1:{service.port}"]
        with said.open() as file:
            chat = await asyncio.create_subprocess_exec(
                WARMLINE, *arguments, stdin=file, stdout=PIPE, stderr=PIPE
            )
        out, err = await asyncio.wait_for(chat.communicate(), 90)
    assert (chat.returncode, out) == (0, b"echo: one\n\necho: two\n"), err


async def test_ctrl_c_twice_is_one_interrupt() -> None:
    """The second is ignored while the first is under way; a later one counts again."""

    class Slow:
        """A conversation whose interrupts take until they are let go."""

        begun = 0
        go = asyncio.Event()

        async def interrupt(self) -> None:
            """Count."""
            self.begun += 1
            await self.go.wait()

    chat = Slow()
    async with interrupting(cast("Conversation", chat)):
        for _ in range(3):
            os.kill(os.getpid(), signal.SIGINT)
            await asyncio.sleep(0.05)
        assert chat.begun == 1
        chat.go.set()
        await asyncio.sleep(0.05)
        os.kill(os.getpid(), signal.SIGINT)
        await asyncio.sleep(0.05)
    assert chat.begun == 2


async def test_a_turn_that_is_told_again_is_whole_when_the_stream_breaks(tmp_path: Path) -> None:
    """The conversation has been told of all of it before, so that no cursor leads to what is missing."""
    async with running_service(cli=faking(tmp_path)) as service, tcp_proxy(service.port) as proxy:
        async with connect(proxy.address) as client, client.chat() as chat:
            whole = [event async for event in await chat.send("!deltas 2000 0 1000", key="k")]
            turn = await chat.send("!deltas 2000 0 1000", key="k")
            assert (await anext(aiter(turn))).HasField("turn_attached")
            assert proxy.cut_after(200_000) == 1
            async with asyncio.timeout(20):
                again = [event async for event in turn]
            assert text_of(again) == text_of(whole)
            assert again[-1] == whole[-1]
            numbers = [event.seq for event in again if event.seq]
            assert numbers == sorted(set(numbers))
