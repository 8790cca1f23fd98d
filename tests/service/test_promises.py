"""Promises that only hold when somebody misbehaves at the wrong moment."""

import asyncio
import json
import signal
from pathlib import Path
from typing import Any, NoReturn

import grpc
import pydantic
import pytest
from processes import descendants
from running import (
    data_directory,
    events_of,
    faking,
    kinds,
    running_client,
    running_service,
    service_in,
    small_settings,
    text_of,
    until,
)
from warmline.v1 import chat_service_pb2 as pb
from warmline.v1 import chat_service_pb2_grpc as pb_grpc
from warmline.v1 import events_pb2
from warmline_client import WarmlineError, connect
from warmline_client._errors import from_rpc_error
from warmline_service.rpc._wire import _tool_call
from warmline_service.sessions.events import ToolCall


def stop_processes(directory: Path) -> None:
    """SIGSTOP every CLI process that was installed in a directory."""
    for process, shown in descendants("cmdline"):
        if any(str(directory) in word for word in shown["cmdline"] or ()):
            process.send_signal(signal.SIGSTOP)


async def test_a_process_that_reads_no_more_can_be_interrupted(tmp_path: Path) -> None:
    """FORCED within its bound, and the turn ends with it, however long its message is."""
    async with running_client(cli=faking(tmp_path)) as client, client.chat() as chat:
        await events_of(chat, "hi")
        stop_processes(tmp_path)
        turn = await chat.send("x" * 5_000_000)
        async with asyncio.timeout(8):
            async for event in turn:
                if event.HasField("turn_started"):
                    result = await chat.interrupt()
        assert result.outcome == events_pb2.InterruptResult.OUTCOME_FORCED
        assert event.HasField("turn_failed")


async def test_a_drain_ends_every_accepted_turn(tmp_path: Path) -> None:
    """Also that of a process which neither reads nor answers: its caller gets the terminal event."""
    async with running_service(cli=faking(tmp_path), drain_grace=0.2) as service:
        async with connect(f"127.0.0.1:{service.port}") as client, client.chat() as chat:
            await events_of(chat, "hi")
            stop_processes(tmp_path)
            turns = [await chat.send("x" * 5_000_000), await chat.send("next")]
            await until(lambda: bool(turns[1].id))
            stopping = asyncio.create_task(service.stop())
            for turn in turns:
                with pytest.raises(WarmlineError) as caught:
                    await turn.completed()
                assert caught.value.reason == "DRAINING"
            await stopping


async def test_a_reader_that_stops_for_good_holds_nobody_up(tmp_path: Path) -> None:
    """Its stream is stuck in a write; another may take the session over, and is told everything."""
    small = [("grpc.http2.lookahead_bytes", 1024), ("grpc.http2.bdp_probe", 0)]
    async with running_service(cli=faking(tmp_path)) as service:
        address = f"127.0.0.1:{service.port}"
        async with grpc.aio.insecure_channel(address, options=small) as channel:
            call: Any = pb_grpc.ChatServiceStub(channel).Chat()
            await call.initial_metadata()
            await call.write(pb.ChatRequest(open=pb.Open()))
            session = (await call.read()).events[0].session_id
            said = pb.UserMessage(text="!deltas 3000 0 4000")
            await call.write(pb.ChatRequest(message=said))
            start = pb.Cursor(seq=0)
            async with connect(address) as client, asyncio.timeout(90):
                async with client.chat(session_id=session, after=start, takeover=True) as chat:
                    await until(lambda: "turn_completed" in kinds(list(chat.notices)), 20)
                    assert text_of(await events_of(chat, "hi")) == "echo: hi"


async def test_an_ask_tells_its_own_turn_only(tmp_path: Path) -> None:
    """On a session whose earlier turn still runs, the answer is not the other's."""
    async with running_client(cli=faking(tmp_path)) as client:
        async with client.chat() as chat:
            turn = await chat.send("!deltas 30 20")
            await anext(aiter(turn))
            session = chat.session_id
            chat.cancel()
        async with asyncio.timeout(90):
            while True:
                try:
                    events = [e async for e in client.ask("mine", session_id=session)]
                    break
                except WarmlineError as error:
                    assert error.reason == "SESSION_BUSY"  # noqa: PT017  # the stream is being lost
    assert kinds(events).count("turn_completed") == 1
    assert text_of(events) == "echo: mine"


async def test_a_stream_that_never_opens_is_ended(tmp_path: Path) -> None:
    """Without a first frame the call ends after its bound, by name."""
    async with running_service(cli=faking(tmp_path), limits={"open_timeout": 0.3}) as service:
        async with grpc.aio.insecure_channel(f"127.0.0.1:{service.port}") as channel:
            call: Any = pb_grpc.ChatServiceStub(channel).Chat()
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await call.read()
    assert from_rpc_error(caught.value).reason == "FRAME_OUT_OF_ORDER"


def test_json_that_protobuf_cannot_carry_travels_as_text() -> None:
    """Deep nesting and huge numbers of a tool's input break no stream."""
    deep: dict[str, Any] = {"end": True}
    for _ in range(200):
        deep = {"in": deep}
    out = events_pb2.ToolCall()
    _tool_call(
        out, ToolCall("id", "Tool", {"deep": deep, "huge": 10**400, "plain": [1, "a", None]})
    )
    again = events_pb2.Event.FromString(events_pb2.Event(tool_call=out).SerializeToString())
    value: Any = again.tool_call.input["deep"]
    while not isinstance(value, str):
        value = value["in"]
    assert json.loads(value)
    plain: Any = again.tool_call.input["plain"]
    assert list(plain) == [1, "a", None]


@pytest.mark.parametrize(
    "listen", ["127.0.0.1:65536", "127.0.0.1:99999", "127.0.0.1", ":1", "a b:1"]
)
def test_a_port_that_does_not_exist_is_refused(tmp_path: Path, listen: str) -> None:
    """The setting is named, before anything starts."""
    with pytest.raises(pydantic.ValidationError, match="listen"):
        small_settings(tmp_path, listen=listen)


async def test_a_stop_while_a_session_is_loaded_says_draining(tmp_path: Path) -> None:
    """Whoever waits for the session learns that another try makes sense."""
    fake = faking(tmp_path)
    with data_directory() as data:
        async with service_in(data, cli=fake) as service:
            async with connect(f"127.0.0.1:{service.port}") as client, client.chat() as chat:
                await events_of(chat, "hi")
        async with service_in(data, cli=fake, drain_grace=0.1) as service:
            loading = asyncio.Event()

            async def never(tenant: str, session_id: str) -> NoReturn:
                loading.set()
                await asyncio.Event().wait()
                raise AssertionError("nobody sets it")

            assert service._store is not None
            service._store.take = never  # type: ignore[method-assign]  # a store that is slow
            async with connect(f"127.0.0.1:{service.port}") as client:
                again = client.chat(session_id=chat.session_id, reconnect_timeout=0)
                opening = asyncio.create_task(again.__aenter__())
                await loading.wait()
                await service.stop()
                with pytest.raises(WarmlineError, match="DRAINING"):
                    await opening
