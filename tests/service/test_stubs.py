"""The service as others reach it: a sync stub by pytest-grpc's fixtures, and `buf curl` by reflection."""

import asyncio
import json
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import grpc
import pytest
from running import running_service
from warmline.v1 import chat_service_pb2 as pb
from warmline.v1 import chat_service_pb2_grpc as pb_grpc

pytestmark = [pytest.mark.real_cli, pytest.mark.shared_service]
BUF = Path(sys.executable).parent / "buf"


class ServiceThread:
    """A whole service on a loop of its own, so that sync stubs can talk to it."""

    def __init__(self) -> None:
        self._ready: threading.Event = threading.Event()
        self._thread = threading.Thread(target=asyncio.run, args=(self._main(),))
        self.port = 0

    def start(self) -> None:
        """Start; the port is set on return."""
        self._thread.start()
        assert self._ready.wait(60)
        assert self.port

    def stop(self) -> None:
        """Drain, stop, and wait for the thread."""
        self._loop.call_soon_threadsafe(self._stopping.set)
        self._thread.join(60)
        assert not self._thread.is_alive()

    async def _main(self) -> None:
        self._loop, self._stopping = asyncio.get_running_loop(), asyncio.Event()
        try:
            async with AsyncExitStack() as stack:
                service = await stack.enter_async_context(running_service())
                self.port = service.port
                self._ready.set()
                await self._stopping.wait()
        finally:
            self._ready.set()


@pytest.fixture(scope="module")
def grpc_server() -> Iterator[ServiceThread]:
    """The plugin's server is the real service."""
    service = ServiceThread()
    service.start()
    yield service
    service.stop()


@pytest.fixture(scope="module")
def grpc_addr(grpc_server: ServiceThread) -> str:
    """Where it listens."""
    return f"127.0.0.1:{grpc_server.port}"


@pytest.fixture(scope="module")
def grpc_stub_cls(grpc_channel: grpc.Channel) -> Callable[[grpc.Channel], Any]:
    """What the plugin makes its stub of."""
    return pb_grpc.ChatServiceStub


def test_a_sync_stub_asks(grpc_stub: Any) -> None:
    """A caller with a blocking stub gets the same events."""
    request = pb.AskRequest(message=pb.UserMessage(text="::say from a sync stub"))
    events = [event for response in grpc_stub.Ask(request, timeout=30) for event in response.events]
    assert events[-1].turn_completed.result == "from a sync stub"


def test_a_sync_stub_converses(grpc_stub: Any) -> None:
    """A request iterator that ends is a half-close: the stream ends with OK after the last turn."""
    frames = [pb.ChatRequest(open=pb.Open())] + [
        pb.ChatRequest(message=pb.UserMessage(text=f"::say {number}")) for number in range(2)
    ]
    events = [e for r in grpc_stub.Chat(iter(frames), timeout=30) for e in r.events]
    assert [e.turn_completed.result for e in events if e.HasField("turn_completed")] == ["0", "1"]


def buf_curl(address: str, method: str, *options: str, data: str | None = None) -> list[Any]:
    """Call a method as the README says; every message of the answer."""
    command = [str(BUF), "curl", "--protocol", "grpc", "--http2-prior-knowledge", *options]
    if data is not None:
        command += ["--data", data]
    run = subprocess.run(
        [*command, f"http://{address}/{method}"], capture_output=True, timeout=60, check=True
    )
    decoder, text, found = json.JSONDecoder(), run.stdout.decode().strip(), []
    while text:
        value, end = decoder.raw_decode(text)
        found.append(value)
        text = text[end:].strip()
    return found


def test_buf_curl_needs_no_proto_files(grpc_addr: str, grpc_server: ServiceThread) -> None:
    """Reflection tells the methods; Ask streams; Chat takes frames; models are listed."""
    service = "warmline.v1.ChatService"
    answers = buf_curl(
        grpc_addr, f"{service}/Ask", data='{"message":{"text":"::say by reflection"}}'
    )
    events = [event for answer in answers for event in answer["events"]]
    assert events[-1]["turnCompleted"]["result"] == "by reflection"
    frames = '{"open":{}}{"message":{"text":"::say hi"}}'
    chat = buf_curl(grpc_addr, f"{service}/Chat", data=frames)
    assert chat[-1]["events"][-1]["turnCompleted"]["result"] == "hi"
    models = buf_curl(grpc_addr, "warmline.v1.ModelService/ListModels", data="{}")
    assert models[0]["models"][0]["isDefault"]


def test_every_service_has_its_health(grpc_addr: str, grpc_server: ServiceThread) -> None:
    """Each service is SERVING by its full name, and so is the whole."""
    for name in ("", "warmline.v1.ChatService", "warmline.v1.ModelService"):
        data = json.dumps({"service": name})
        assert buf_curl(grpc_addr, "grpc.health.v1.Health/Check", data=data) == [
            {"status": "SERVING"}
        ]
