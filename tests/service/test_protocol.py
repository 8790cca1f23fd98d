"""The protocol of the stream, as seen by a bare stub."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from importlib.metadata import version
from typing import Any

import grpc
import pytest
from running import running_client, running_service
from warmline.v1 import chat_service_pb2 as pb
from warmline.v1 import chat_service_pb2_grpc as pb_grpc
from warmline.v1 import model_service_pb2 as model_pb
from warmline.v1 import model_service_pb2_grpc as model_grpc
from warmline.v1 import session_config_pb2 as config_pb
from warmline_client import WarmlineError
from warmline_client._errors import from_rpc_error
from warmline_service.server import Service

pytestmark = pytest.mark.real_cli
OPEN = pb.ChatRequest(open=pb.Open())


@asynccontextmanager
async def channel_to(service: Service) -> AsyncIterator[grpc.aio.Channel]:
    async with grpc.aio.insecure_channel(f"127.0.0.1:{service.port}") as channel:
        yield channel


async def refusal(call: Any, *frames: Any) -> WarmlineError:
    """Send frames one by one, each after an answer where there is one, until the call fails."""
    await call.initial_metadata()
    with pytest.raises(grpc.aio.AioRpcError) as caught:  # noqa: PT012  # any of the steps may raise
        for frame in frames:
            await call.write(frame)
            if await call.read() is grpc.aio.EOF:
                break
        while await call.read() is not grpc.aio.EOF:
            pass
    return from_rpc_error(caught.value)


BAD_STREAMS = {
    "message first": ([pb.ChatRequest(message=pb.UserMessage(text="x"))], "FRAME_OUT_OF_ORDER", ""),
    "interrupt first": ([pb.ChatRequest(interrupt=pb.Interrupt())], "FRAME_OUT_OF_ORDER", ""),
    "empty first": ([pb.ChatRequest()], "FRAME_OUT_OF_ORDER", ""),
    "open twice": ([OPEN, OPEN], "FRAME_OUT_OF_ORDER", ""),
    "empty frame": ([OPEN, pb.ChatRequest()], "FIELD_INVALID", "frame"),
    "empty message": (
        [OPEN, pb.ChatRequest(message=pb.UserMessage(text=" "))],
        "FIELD_INVALID",
        "message.text",
    ),
    "unknown detail": ([pb.ChatRequest(open=pb.Open(detail=77))], "FIELD_INVALID", "open.detail"),  # type: ignore[arg-type]
    "no such session": (
        [pb.ChatRequest(open=pb.Open(session_id="01234567-89ab-cdef-0123-456789abcdef"))],
        "SESSION_NOT_FOUND",
        "",
    ),
    "no such model": (
        [pb.ChatRequest(open=pb.Open(config=config_pb.SessionConfig(model="gpt")))],
        "MODEL_NOT_FOUND",
        "",
    ),
    "bad session id": (
        [pb.ChatRequest(open=pb.Open(session_id="../x"))],
        "FIELD_INVALID",
        "open.session_id",
    ),
}


async def test_each_bad_stream_gets_its_own_error() -> None:
    """A frame out of order, an unknown value, a bad field: typed, and the field is named."""
    async with running_service() as service, channel_to(service) as channel:
        stub = pb_grpc.ChatServiceStub(channel)
        for name, (frames, reason, field) in BAD_STREAMS.items():
            error = await refusal(stub.Chat(), *frames)
            assert error.reason == reason, name
            assert not field or field in error.fields, name


async def test_bytes_that_are_no_message_are_the_callers_fault() -> None:
    """Bad protobuf and a string that is not UTF-8 are INVALID_ARGUMENT on every method."""
    unary = {"ListModels": b"\x12\x01\xff", "GetModel": b"\x0a\x01\xff"}
    async with running_service() as service, channel_to(service) as channel:
        for data in (b"\xff\xff\xff", b"\x0a\x03\x0a\x01\xff"):
            chat: Any = channel.stream_stream("/warmline.v1.ChatService/Chat")
            ask: Any = channel.unary_stream("/warmline.v1.ChatService/Ask")
            assert (await refusal(chat(), data)).reason == "FIELD_INVALID"
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await ask(data).read()
            assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
        for method, data in unary.items():
            call: Any = channel.unary_unary(f"/warmline.v1.ModelService/{method}")
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await call(data)
            assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT


async def test_a_message_over_the_limit_is_refused_and_the_session_lives() -> None:
    """MESSAGE_TOO_LARGE names the limit; the session can be opened again."""
    async with running_service(limits={"message_bytes": 10_000}) as service:
        async with channel_to(service) as channel:
            stub = pb_grpc.ChatServiceStub(channel)
            call: Any = stub.Chat()
            await call.initial_metadata()
            await call.write(OPEN)
            session = (await call.read()).events[0].session_id
            big = pb.ChatRequest(message=pb.UserMessage(text="x" * 15_000))
            error = await refusal(call, big)
            assert (error.reason, error.metadata["limitBytes"]) == ("MESSAGE_TOO_LARGE", "10000")
            again: Any = stub.Chat()
            await again.write(pb.ChatRequest(open=pb.Open(session_id=session)))
            assert (await again.read()).events[0].session_id == session
            again.cancel()


async def test_half_closing_finishes_what_was_accepted() -> None:
    """All messages sent before the half-close run, then the stream ends with OK."""
    async with running_service() as service, channel_to(service) as channel:
        call = pb_grpc.ChatServiceStub(channel).Chat()
        await call.write(OPEN)
        for number in range(3):
            await call.write(pb.ChatRequest(message=pb.UserMessage(text=f"::say {number}")))
        await call.done_writing()
        events = [event async for response in call for event in response.events]
        results = [e.turn_completed.result for e in events if e.HasField("turn_completed")]
        assert results == ["0", "1", "2"]
        assert await call.code() is grpc.StatusCode.OK
        queued = [e.turn_queued.position for e in events if e.HasField("turn_queued")]
        assert queued == [0, 1, 2]


async def test_only_one_stream_writes_a_session() -> None:
    """A second stream is SESSION_BUSY; when the first has gone it may have the session."""
    async with running_client() as client:
        async with client.chat() as first:
            with pytest.raises(WarmlineError) as caught:
                await client.chat(session_id=first.session_id).__aenter__()
            assert caught.value.reason == "SESSION_BUSY"
        async with client.chat(session_id=first.session_id) as second:
            assert second.session_id == first.session_id


async def test_too_many_messages_fail_their_own_turns() -> None:
    """Beyond the bound a message ends in QUEUE_FULL; those before it run."""
    async with running_client(limits={"queued_messages": 1}) as client, client.chat() as chat:
        running = await chat.send("::pace 20ms\n::text 50")
        waiting = await chat.send("::say two")
        refused = await chat.send("::say three")
        with pytest.raises(WarmlineError) as caught:
            await refused.completed()
        assert caught.value.reason == "QUEUE_FULL"
        assert caught.value.retry_after
        assert (await running.completed()).result
        assert (await waiting.completed()).result == "two"


async def test_a_deadline_ends_the_call_and_not_the_turn() -> None:
    """The caller sees DEADLINE_EXCEEDED; the session has the answer in its context."""
    async with running_client() as client:
        async with client.chat() as chat:
            session = chat.session_id
            await (await chat.send("::say ready")).completed()
        with pytest.raises(WarmlineError) as caught:
            async for _ in client.ask("::pace 20ms\n::text 50", session_id=session, timeout=0.4):
                pass
        assert caught.value.code is grpc.StatusCode.DEADLINE_EXCEEDED
        async with client.chat(session_id=session) as chat:
            done = await (await chat.send("::echo messages")).completed()
        assert "warm lines answer" in done.result


async def test_a_lost_client_leaves_the_turn_running() -> None:
    """A cancelled stream ends no turn; the next stream finds the process hot."""
    async with running_client() as client:
        chat = client.chat()
        await chat.__aenter__()
        turn = await chat.send("::pace 10ms\n::text 60")
        await anext(aiter(turn))
        await chat.__aexit__(RuntimeError, RuntimeError(), None)
        async with asyncio.timeout(20), client.chat(session_id=chat.session_id) as again:
            assert (await (await again.send("::say hi")).completed()).result == "hi"


async def test_callers_are_told_where_messages_go() -> None:
    """The provider, the default model, and what the audit log keeps: nothing of texts where it is off."""
    for audit, kept in (
        ({"request_bodies": True}, (True, True, False)),
        ({"enabled": False, "request_bodies": True}, (False, False, False)),
    ):
        async with running_service(audit=audit) as service, channel_to(service) as channel:
            stub = model_grpc.ModelServiceStub(channel)
            told = await stub.GetRouting(model_pb.GetRoutingRequest())
            default = (await stub.ListModels(model_pb.ListModelsRequest(page_size=1))).models[0]
        assert (told.version, list(told.providers)) == (version("warmline"), ["loopback"])
        assert told.default_model == default.id
        switches = told.audit
        assert (switches.enabled, switches.request_bodies, switches.response_bodies) == kept


async def test_models_are_listed_by_pages_and_got_by_any_name() -> None:
    """Pages join to the whole list; the default is first; an alias is as good as the id."""
    async with running_service() as service, channel_to(service) as channel:
        stub = model_grpc.ModelServiceStub(channel)
        whole = (await stub.ListModels(model_pb.ListModelsRequest())).models
        pages: list[model_pb.Model] = []
        token = ""
        while True:
            request = model_pb.ListModelsRequest(page_size=2, page_token=token)
            page = await stub.ListModels(request)
            pages += page.models
            if not (token := page.next_page_token):
                break
        assert pages == list(whole)
        assert [model.is_default for model in whole].index(True) == 0
        for name in (whole[1].id, whole[1].name, whole[1].aliases[0]):
            got = await stub.GetModel(model_pb.GetModelRequest(name=name))
            assert got.model == whole[1]
        for bad in ("", "nothing"):
            with pytest.raises(grpc.aio.AioRpcError):
                await stub.GetModel(model_pb.GetModelRequest(name=bad))
        with pytest.raises(grpc.aio.AioRpcError):
            await stub.ListModels(model_pb.ListModelsRequest(page_token="x"))
