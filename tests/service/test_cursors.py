"""A stream that breaks loses nothing: cursors, observers, take-overs, and what becomes of the turn."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
import pytest
from running import events_of, faking, kinds, running_client, running_service, text_of, until
from warmline.v1 import chat_service_pb2 as pb
from warmline.v1 import chat_service_pb2_grpc as pb_grpc
from warmline.v1 import events_pb2
from warmline_client import Client, WarmlineError, connect
from warmline_client._errors import from_rpc_error
from warmline_service.server import Service

LIMITS = {"recent_bytes": 64 * 1024}


@asynccontextmanager
async def stub_of(service: Service) -> AsyncIterator[Any]:
    """A stub, whose types know no reading and writing."""
    async with grpc.aio.insecure_channel(f"127.0.0.1:{service.port}") as channel:
        yield pb_grpc.ChatServiceStub(channel)


async def begin(stub: Any, opening: pb.Open) -> tuple[Any, pb.ChatResponse]:
    """A Chat whose session is open, and what it was told first."""
    call: Any = stub.Chat()
    await call.write(pb.ChatRequest(open=opening))
    return call, await call.read()


async def refusal(call: Any) -> WarmlineError:
    """The error that ends a call."""
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call.read()
    return from_rpc_error(caught.value)


async def told(client: Client, session_id: str, **wanted: Any) -> list[events_pb2.Event]:
    """Everything that is stored of a session."""
    return [event async for event in client.watch(session_id, replay_only=True, **wanted)]


def apart(events: list[events_pb2.Event]) -> list[tuple[str, str]]:
    """Kinds and texts, with joined deltas as one."""
    out: list[tuple[str, str]] = []
    for event in events:
        kind, text = str(event.WhichOneof("kind")), event.text_delta.text
        if out and kind == out[-1][0] == "text_delta":
            out[-1] = (kind, out[-1][1] + text)
        else:
            out.append((kind, text))
    return out


async def test_a_stream_may_be_cut_at_every_event(tmp_path: Path) -> None:
    """What the two streams saw together is what one would have seen, in order and once."""
    async with running_service(cli=faking(tmp_path)) as service, stub_of(service) as stub:
        cut = 1
        while True:
            seen, ended = await cut_at(stub, cut)
            numbers = [event.seq for event in seen]
            assert numbers == sorted(set(numbers))
            text = text_of(seen)
            assert text == "x" * 8 * 12
            assert kinds(seen).count("turn_completed") == 1
            if ended:
                break
            cut += 1
    assert cut > 12


async def cut_at(stub: Any, cut: int) -> tuple[list[events_pb2.Event], bool]:
    """Run a turn, lose the stream after so many events, come again; whether it had ended by then."""
    call, first = await begin(stub, pb.Open())
    opened = first.events[0].session_opened
    message = pb.UserMessage(text="!deltas 12 3")
    await call.write(pb.ChatRequest(message=message))
    seen: list[events_pb2.Event] = []
    while len(seen) < cut and "turn_completed" not in kinds(seen):
        seen += [event for event in (await call.read()).events if event.seq]
    call.cancel()
    seen = seen[:cut]
    ended = "turn_completed" in kinds(seen)
    after = pb.Cursor(epoch=seen[-1].epoch, seq=seen[-1].seq)
    opening = pb.Open(session_id=opened.session_id, after=after, takeover=True)
    call, first = await begin(stub, opening)
    responses = list(first.events)
    while "turn_completed" not in kinds(seen + responses):
        responses += (await call.read()).events
    await call.done_writing()
    async with asyncio.timeout(60):
        while (response := await call.read()) is not grpc.aio.EOF:
            responses += response.events
    return seen + [event for event in responses if event.seq], ended


async def test_a_turn_goes_on_without_its_stream(tmp_path: Path) -> None:
    """And who comes back later is told what happened, all of it."""
    async with running_client(cli=faking(tmp_path)) as client:
        async with client.chat() as chat:
            turn = await chat.send("!deltas 20 10")
            await anext(aiter(turn))
            session_id, cursor = chat.session_id, chat.cursor
            chat.cancel()
        await until_ended(client, session_id)
        async with client.chat(session_id=session_id, after=cursor, takeover=True) as again:
            await until(lambda: "turn_completed" in kinds(list(again.notices)))
            assert text_of(list(again.notices)) == "x" * 160


async def until_ended(client: Client, session_id: str) -> None:
    """Wait for the end of a session's first turn."""
    async with asyncio.timeout(20):
        async for event in client.watch(session_id):
            if event.HasField("turn_completed"):
                return


async def test_any_number_may_watch(tmp_path: Path) -> None:
    """Each is told everything, from the beginning or from its place, and what it asked for alone."""
    async with running_client(cli=faking(tmp_path)) as client, client.chat() as chat:
        await events_of(chat, "one")
        watching = [asyncio.create_task(watched(client, chat.session_id)) for _ in range(5)]
        ends = asyncio.create_task(watched(client, chat.session_id, kinds=["turn_completed"]))
        await events_of(chat, "two")
        everything = await asyncio.wait_for(asyncio.gather(*watching), 20)
        assert all(each == everything[0] for each in everything)
        assert [kind for kind, _ in everything[0]].count("turn_completed") == 2
        assert await asyncio.wait_for(ends, 20) == [("turn_completed", "")] * 2


async def watched(client: Client, session_id: str, **wanted: Any) -> list[tuple[str, str]]:
    """What an observer is told up to the end of the second turn."""
    events: list[events_pb2.Event] = []
    async for event in client.watch(session_id, **wanted):
        events.append(event)
        if kinds(events).count("turn_completed") == 2:
            break
    return apart(events)


async def test_a_slow_observer_slows_nobody(tmp_path: Path) -> None:
    """It gets all of it all the same, from the store."""
    small = [("grpc.http2.lookahead_bytes", 1024), ("grpc.http2.bdp_probe", 0)]
    async with running_service(cli=faking(tmp_path), limits=LIMITS) as service:
        address = f"127.0.0.1:{service.port}"
        async with connect(address) as client, client.chat() as chat:
            await events_of(chat, "hi")
            async with grpc.aio.insecure_channel(address, options=small) as channel:
                request = pb.WatchRequest(session_id=chat.session_id)
                call: Any = pb_grpc.ChatServiceStub(channel).Watch(request)
                await call.read()
                whole = await events_of(chat, "!deltas 3000 0 1000")
                assert len(text_of(whole)) == 3_000_000
                events: list[events_pb2.Event] = []
                while "turn_completed" not in kinds(events):
                    events = [
                        e for e in (await call.read()).events if e.turn_id == whole[0].turn_id
                    ]
                    whole_text = text_of(events)
                    assert set(whole_text) <= {"x"}


async def test_a_second_stream_is_refused_or_takes_over(tmp_path: Path) -> None:
    """The first is told, can read to the end, and may not speak any more."""
    async with running_client(cli=faking(tmp_path)) as client, client.chat() as first:
        await events_of(first, "hi")
        session_id = first.session_id
        with pytest.raises(WarmlineError, match="SESSION_BUSY"):
            async with client.chat(session_id=session_id):
                pass
        async with client.chat(session_id=session_id, takeover=True) as second:
            assert text_of(await events_of(second, "mine now")) == "echo: mine now"
            await until(lambda: "echo: mine now" in text_of(list(first.notices)))
            taken = [each for each in first.notices if each.HasField("notice")]
            assert taken[0].notice.kind == events_pb2.Notice.KIND_TAKEN_OVER
            turn = await first.send("still me?")
            with pytest.raises(WarmlineError, match="SESSION_BUSY"):
                await asyncio.wait_for(turn.completed(), 60)
            assert text_of(await events_of(second, "again")) == "echo: again"


@pytest.mark.parametrize("interrupt", [True, False])
async def test_a_lost_stream_interrupts_where_it_was_asked_to(
    tmp_path: Path, interrupt: bool
) -> None:
    """Otherwise the turn goes on."""
    async with running_client(cli=faking(tmp_path)) as client:
        chat = client.chat(interrupt_on_disconnect=interrupt)
        async with chat:
            turn = await chat.send("!deltas 60 20")
            await anext(aiter(turn))
            session_id = chat.session_id
            chat.cancel()
        await until_ended(client, session_id)
        (end,) = await told(client, session_id, kinds=["turn_completed"])
    stopped = end.turn_completed.stop_reason == events_pb2.STOP_REASON_INTERRUPTED
    assert stopped is interrupt


async def test_a_half_close_is_no_disconnect(tmp_path: Path) -> None:
    """What was accepted is finished and told."""
    async with running_service(cli=faking(tmp_path)) as service, stub_of(service) as stub:
        opening = pb.Open(on_disconnect=pb.ON_DISCONNECT_INTERRUPT)
        call, _ = await begin(stub, opening)
        await call.write(pb.ChatRequest(message=pb.UserMessage(text="!deltas 20 10")))
        await call.done_writing()
        events: list[events_pb2.Event] = []
        while (response := await call.read()) is not grpc.aio.EOF:
            events += response.events
    assert text_of(events) == "x" * 160
    assert events[-1].turn_completed.stop_reason == events_pb2.STOP_REASON_END_TURN


@pytest.mark.parametrize(
    ("opening", "field"),
    [
        (pb.Open(after=pb.Cursor(seq=1)), "open.after"),
        (pb.Open(session_id="x"), "open.session_id"),
        (pb.Open(idempotency_key="two words"), "open.idempotency_key"),
        (pb.Open(idempotency_key="k", continue_latest=True), "open.idempotency_key"),
        (pb.Open(fork=pb.ForkFrom(turn_id="0" * 36)), "open.fork"),
        (pb.Open(on_disconnect=7), "open.on_disconnect"),  # type: ignore[arg-type]  # of a later version
    ],
    ids=["after", "session_id", "key", "key-of-existing", "fork", "on_disconnect"],
)
async def test_a_bad_opening_is_refused_by_field(
    tmp_path: Path, opening: pb.Open, field: str
) -> None:
    """Before anything is begun."""
    async with running_service(cli=faking(tmp_path)) as service, stub_of(service) as stub:
        call: Any = stub.Chat()
        await call.write(pb.ChatRequest(open=opening))
        error = await refusal(call)
    assert error.reason == "FIELD_INVALID"
    assert any(each.startswith(field) for each in error.fields), error.fields


async def test_a_cursor_from_the_future_is_refused(tmp_path: Path) -> None:
    """By field, on Chat and on Watch."""
    async with running_client(cli=faking(tmp_path)) as client, client.chat() as chat:
        await events_of(chat, "hi")
        ahead = pb.Cursor(epoch=1, seq=10_000)
        with pytest.raises(WarmlineError) as caught:
            await told(client, chat.session_id, after=ahead)
        assert "after.seq" in caught.value.fields
        with pytest.raises(WarmlineError) as caught:
            async with client.chat(session_id=chat.session_id, after=ahead, takeover=True):
                pass
        assert "open.after.seq" in caught.value.fields


async def test_watching_what_does_not_exist_is_refused(tmp_path: Path) -> None:
    """A session of another tenant would answer the same."""
    async with running_client(cli=faking(tmp_path)) as client:
        for session_id, match in (
            ("", "session_id"),
            ("0" * 8 + "-0000" * 3 + "-" + "0" * 12, "NOT_FOUND"),
        ):
            with pytest.raises(WarmlineError, match=match):
                await told(client, session_id)
        with pytest.raises(WarmlineError, match=r"kinds\[1\]"):
            async with client.chat() as chat:
                await told(client, chat.session_id, kinds=["text_delta", "nonsense"])
