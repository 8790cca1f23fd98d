"""A fault of the gateway's own in the middle of an answer: told in every format; the real CLI."""

import json
from collections.abc import AsyncIterator, Iterator, Sequence
from typing import Any

import pytest
from conversing import Model
from shared import ServiceThread, shared_service
from shimming import Shim, shim_to
from structlog.testing import capture_logs
from warmline.v1 import events_pb2 as pb
from warmline_http._failure import Failure
from warmline_http._link import Events

pytestmark = [pytest.mark.real_cli, pytest.mark.shared_service]

SAID = "::pace 20ms\n::text 10"
ASKED: dict[str, Any] = {
    "model": "haiku",
    "max_tokens": 100,
    "stream": True,
    "messages": [{"role": "user", "content": SAID}],
}
TEXT = Failure.fault("mine").message
ANTHROPIC = {
    "type": "error",
    "error": {"type": "api_error", "message": TEXT},
    "request_id": "mine",
}
OPENAI = {"message": TEXT, "type": "server_error", "param": None, "code": "internal"}
OWN = {"status": 500, "reason": "INTERNAL", "message": TEXT, "request_id": "mine"}


@pytest.fixture(scope="module")
def thread() -> Iterator[ServiceThread]:
    """The service that this module shares."""
    with shared_service(Model()) as thread:
        yield thread


@pytest.fixture
async def shim(thread: ServiceThread, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Shim]:
    """A shim with a bug: it cannot take the end of a turn."""
    read = Events.read

    async def faulty(events: Events) -> Sequence[pb.Event]:
        batch = await read(events)
        if any(event.HasField("turn_completed") for event in batch):
            raise LookupError("what callers must not see")
        return batch

    monkeypatch.setattr(Events, "read", faulty)
    async with shim_to(f"127.0.0.1:{thread.port}") as made:
        yield made


def _told(text: str) -> list[tuple[str, Any]]:
    """The name of each event, and what it says."""
    events = []
    for event in text.split("\n\n"):
        fields = dict(
            line.split(": ", 1) for line in event.split("\n") if line[:1] not in ("", ":")
        )
        if data := fields.get("data"):
            events.append((fields.get("event", ""), data if data == "[DONE]" else json.loads(data)))
    return events


@pytest.mark.parametrize(
    ("path", "body", "told", "last"),
    [
        ("/v1/messages", ASKED, ("error", ANTHROPIC), ""),
        ("/v1/messages/keepalive", ASKED, ("", ANTHROPIC), "[DONE]"),
        ("/v1/chat/completions", ASKED, ("", {"error": OPENAI}), ""),
        ("/v1/chat/stream", {"message": SAID}, ("error", {"error": OWN}), "done"),
    ],
)
async def test_a_fault_is_told_and_the_stream_ends(
    shim: Shim, path: str, body: dict[str, Any], told: tuple[str, Any], last: str
) -> None:
    """After what was written, in the format's own words, which say nothing of the fault; the log does."""
    with capture_logs() as logs:
        answer = await shim.http.post(path, json=body, headers={"x-request-id": "mine"})
    assert answer.status_code == 200
    *written, error = _told(answer.text)
    if last:
        assert last in error
        error = written.pop()
    assert error == told
    assert written
    assert [(each["event"], each["request_id"]) for each in logs if "exc_info" in each] == [
        ("stream failed", "mine")
    ]
