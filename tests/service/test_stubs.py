"""The service as others reach it: a sync stub by pytest-grpc's fixtures, and `buf curl` by reflection."""

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from shared import ServiceThread
from warmline.v1 import chat_service_pb2 as pb
from warmline.v1 import chat_service_pb2_grpc as pb_grpc

pytestmark = [pytest.mark.real_cli, pytest.mark.shared_service]
BUF = Path(sys.executable).parent / "buf"


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
