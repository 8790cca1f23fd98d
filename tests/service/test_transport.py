"""Bounds of the transport: metadata, pings, streams; what is too much is refused, others go on."""

import asyncio
from pathlib import Path
from typing import Any

import fake_cli
import grpc
import pytest
from running import events_of, kinds, running_service, text_of
from warmline.v1 import chat_service_pb2 as pb
from warmline.v1 import chat_service_pb2_grpc as pb_grpc
from warmline.v1 import events_pb2
from warmline.v1 import model_service_pb2 as model_pb
from warmline.v1 import model_service_pb2_grpc as model_grpc
from warmline_client import connect


def faking(directory: Path) -> dict[str, Any]:
    """Settings of a service whose CLI is the fake one."""
    return {"path": fake_cli.install(directory / "fake")}


async def test_metadata_is_bounded(tmp_path: Path) -> None:
    """More than the limit is RESOURCE_EXHAUSTED; a usual amount passes."""
    async with running_service(cli=faking(tmp_path)) as service:
        async with grpc.aio.insecure_channel(f"127.0.0.1:{service.port}") as channel:
            list_models = model_grpc.ModelServiceStub(channel).ListModels
            request = model_pb.ListModelsRequest()
            assert (await list_models(request, metadata=(("x-note", "a" * 4000),))).models
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await list_models(request, metadata=(("x-note", "a" * 60_000),))
            assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED


async def test_a_request_id_comes_back(tmp_path: Path) -> None:
    """A well-formed id of the caller's is kept, any other replaced; the answer names it."""
    async with running_service(cli=faking(tmp_path)) as service:
        async with grpc.aio.insecure_channel(f"127.0.0.1:{service.port}") as channel:
            for given, kept in (("req-1", True), ("a b c", False), ("x" * 300, False)):
                call: Any = pb_grpc.ChatServiceStub(channel).Chat(
                    metadata=(("x-request-id", given),)
                )
                initial = dict(await call.initial_metadata())
                assert (initial["x-request-id"] == given) is kept
                call.cancel()


async def test_a_client_that_pings_too_often_is_cut_off(tmp_path: Path) -> None:
    """Its connection ends; another client's stream does not notice."""
    limits = {"keepalive_min_interval": 300.0}
    options = [
        ("grpc.keepalive_time_ms", 100),
        ("grpc.keepalive_permit_without_calls", 1),
        ("grpc.http2.max_pings_without_data", 0),
        ("grpc.use_local_subchannel_pool", 1),
    ]
    async with running_service(cli=faking(tmp_path), limits=limits) as service:
        address = f"127.0.0.1:{service.port}"
        async with connect(address) as client, client.chat() as chat:
            async with grpc.aio.insecure_channel(address, options=options) as channel:
                call: Any = pb_grpc.ChatServiceStub(channel).Chat()
                await call.initial_metadata()
                await call.write(pb.ChatRequest(open=pb.Open()))
                await call.read()
                with pytest.raises(grpc.aio.AioRpcError) as caught:
                    async with asyncio.timeout(90):
                        await call.read()
                assert "ping" in str(caught.value.details()).lower()
            assert text_of(await events_of(chat, "still here")) == "echo: still here"


async def test_an_overlong_frame_is_refused_and_others_go_on(tmp_path: Path) -> None:
    """Beyond twice the limit gRPC itself refuses the frame, without reading it into memory."""
    async with running_service(cli=faking(tmp_path), limits={"message_bytes": 4096}) as service:
        address = f"127.0.0.1:{service.port}"
        async with connect(address) as client, client.chat() as chat:
            async with grpc.aio.insecure_channel(address) as channel:
                asking: Any = pb_grpc.ChatServiceStub(channel).Ask(
                    pb.AskRequest(message=pb.UserMessage(text="x" * 1_000_000))
                )
                with pytest.raises(grpc.aio.AioRpcError) as caught:
                    await asking.read()
                assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
            assert text_of(await events_of(chat, "still here")) == "echo: still here"


async def test_a_slow_reader_slows_nobody(tmp_path: Path) -> None:
    """Others are served meanwhile; it gets all of its turn, at its own pace, and the memory is bounded."""
    limits = {"recent_bytes": 64 * 1024}
    small_window = [
        ("grpc.http2.lookahead_bytes", 1024),
        ("grpc.http2.bdp_probe", 0),
        ("grpc.max_receive_message_length", -1),
    ]
    async with running_service(cli=faking(tmp_path), limits=limits) as service:
        address = f"127.0.0.1:{service.port}"
        async with grpc.aio.insecure_channel(address, options=small_window) as channel:
            call: Any = pb_grpc.ChatServiceStub(channel).Chat()
            await call.initial_metadata()
            await call.write(pb.ChatRequest(open=pb.Open(detail=pb.DETAIL_TEXT)))
            await call.read()
            turn = pb.ChatRequest(message=pb.UserMessage(text="!deltas 4000 0 4000"))
            await call.write(turn)
            async with connect(address) as client, asyncio.timeout(60):
                other = [event async for event in client.ask("quick")]
                assert other[-1].turn_completed.result == "echo: quick"
            events: list[events_pb2.Event] = []
            async with asyncio.timeout(60):
                while "turn_completed" not in kinds(events[-1:]):
                    await asyncio.sleep(0.005)
                    events += (await call.read()).events
        assert len(text_of(events)) == 4000 * 4000
        assert [e.seq for e in events] == sorted({e.seq for e in events})
