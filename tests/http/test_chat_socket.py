"""`/v1/chat/ws`: the whole of Chat as JSON frames, what asks for an answer included; with the real CLI."""

import base64
import json
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest
from chatting import Socket, socket_to
from conversing import Model
from golden import TURN, Golden
from running import running_service
from shared import ServiceThread, shared_service
from shimming import Shim, shim_before, shim_to
from tenancies import tenant
from warmline_http._failure import Failure
from warmline_http.chat._frames import close_code_of
from websockets.exceptions import InvalidStatus

pytestmark = [pytest.mark.real_cli, pytest.mark.shared_service]

WRITE = '::tool Write {"file_path":"f.txt","content":"x"}\n::say done'
WEATHER = {
    "name": "weather",
    "description": "Tells the weather",
    "inputSchema": {"type": "object", "properties": {"city": {"type": "string"}}},
}
NO_SPARES = {"min_spares": 0, "max_spares": 0}


@pytest.fixture(scope="module")
def thread() -> Iterator[ServiceThread]:
    """The service that this module shares."""
    with shared_service(Model()) as thread:
        yield thread


@pytest.fixture
async def shim(thread: ServiceThread) -> AsyncIterator[Shim]:
    """A shim before it, with small bounds."""
    async with shim_to(
        f"127.0.0.1:{thread.port}", heartbeat=0.4, read_timeout=1, body_bytes=64 * 1024
    ) as shim:
        yield shim


@pytest.fixture
async def socket(shim: Shim) -> AsyncIterator[Socket]:
    """A connection that has said nothing yet."""
    async with socket_to(shim.url) as socket:
        yield socket


async def test_a_conversation_ends_by_a_half_close(socket: Socket) -> None:
    """What was said is told to its end; then a close frame says that all is done."""
    await socket.send(open={})
    opened = await socket.until("sessionOpened")
    await socket.send(message={"text": "::say hello"})
    await socket.send(halfClose={})
    assert await socket.ended() == (1000, "done")
    assert opened["sessionId"] == socket.seen[-1]["sessionId"]
    assert socket.seen[-1]["turnCompleted"]["result"] == "hello"
    assert socket.error == {}


async def test_the_stream_is_as_it_always_was(socket: Socket) -> None:
    """Every event of a turn with thinking and a tool, in protobuf's JSON names; a few things apart."""
    await socket.send(open={})
    await socket.send(message={"text": TURN})
    await socket.send(halfClose={})
    assert await socket.ended() == (1000, "done")
    golden = Golden()
    for event in socket.seen:
        kind = next(name for name, value in event.items() if isinstance(value, dict))
        golden.take(kind, event, delta=kind.endswith("Delta"))
    golden.check("chat_socket.txt")


async def test_approvals_are_asked_and_answered(socket: Socket) -> None:
    """Yes and no, each with what becomes of it."""
    await socket.send(open={"config": {"approvals": {"mode": "MODE_STREAM"}}})
    for answer, outcome in (("allow", "OUTCOME_ALLOWED"), ("deny", "OUTCOME_DENIED")):
        await socket.send(message={"text": WRITE.replace("f.txt", f"{answer}.txt")})
        asked = await socket.until("approvalRequested")
        assert asked["toolName"] == "Write"
        await socket.send(approvalDecision={"approvalId": asked["approvalId"], answer: {}})
        assert (await socket.until("approvalResolved"))["outcome"] == outcome
        assert bool((await socket.until("toolResult")).get("isError")) is (answer == "deny")
        await socket.until("turnCompleted")


async def test_tools_of_the_callers_are_called_and_answered(socket: Socket) -> None:
    """Declared in `open`, in protobuf's JSON names."""
    await socket.send(open={"config": {"clientTools": [WEATHER]}})
    call = '::tool mcp__client__weather {"city":"Basel"}\n::say done'
    await socket.send(message={"text": call})
    called = await socket.until("clientToolCalled")
    assert called["input"] == {"city": "Basel"}
    await socket.send(clientToolResult={"callId": called["callId"], "text": "sunny"})
    assert (await socket.until("toolResult"))["text"] == "sunny"
    assert (await socket.until("turnCompleted"))["result"] == "done"


async def test_a_turn_is_stopped_and_outlives_its_connection(shim: Shim) -> None:
    """A lost connection stops nothing; another finds the turn by its cursor, and an interrupt stops it."""
    async with socket_to(shim.url) as first:
        await first.send(open={})
        session = (await first.until("sessionOpened"))["sessionId"]
        await first.send(message={"text": "::pace 20ms\n::text 5000", "idempotencyKey": "long"})
        await first.until("textDelta")
        first.wire.transport.abort()
    seen = int(first.seen[-1]["seq"])
    async with socket_to(shim.url) as second:
        after = {"epoch": 1, "seq": seen}
        await second.send(open={"sessionId": session, "after": after, "takeover": True})
        assert (await second.until("sessionOpened"))["runningTurnId"]
        await second.until("textDelta")
        assert int(second.seen[1]["seq"]) == seen + 1
        await second.send(interrupt={})
        assert (await second.until("interruptResult"))["outcome"] == "OUTCOME_STOPPED"
        completed = await second.until("turnCompleted")
    assert completed["stopReason"] == "STOP_REASON_INTERRUPTED"


async def test_a_quiet_connection_shows_that_it_lives(socket: Socket) -> None:
    """An empty frame after each heartbeat of silence: pages cannot see pings."""
    await socket.send(open={})
    await socket.until("sessionOpened")
    assert json.loads(await socket.wire.recv()) == {}


HOSTILE: list[tuple[list[Any], int, str]] = [
    (["no JSON"], 1007, "FRAME_INVALID"),
    (["[]"], 1007, "FRAME_INVALID"),
    (["{}"], 1007, "FRAME_INVALID"),
    ([b"\xff\x00"], 1007, "FRAME_INVALID"),
    (["[" * 20_000], 1007, "FRAME_INVALID"),
    (['{"open": {"surprise": 1}}'], 1007, "FRAME_INVALID"),
    (['{"open": {}, "message": {}}'], 1007, "FRAME_INVALID"),
    (['{"message": {"text": "\\ud800"}}'], 1007, "FRAME_INVALID"),
    (['{"open": ' * 30 + "{}" + "}" * 30], 1007, "FRAME_INVALID"),
    (['{"message": {"text": "hi"}}'], 1008, "FRAME_OUT_OF_ORDER"),
    (['{"halfClose": {}}'], 1008, "FRAME_OUT_OF_ORDER"),
    ([], 1008, "FRAME_OUT_OF_ORDER"),
    (['{"open": {}}', '{"open": {}}'], 1008, "FRAME_OUT_OF_ORDER"),
    (['{"open": {}}', '{"halfClose": {}}', '{"interrupt": {}}'], 1008, "FRAME_OUT_OF_ORDER"),
    (['{"open": {"sessionId": "../x"}}'], 1008, "FIELD_INVALID"),
    (['{"open": {"config": {"model": "gpt"}}}'], 1008, "MODEL_NOT_FOUND"),
]


@pytest.mark.parametrize(("frames", "code", "reason"), HOSTILE)
async def test_a_bad_frame_is_answered_once_and_the_connection_closed(
    socket: Socket, frames: list[Any], code: int, reason: str
) -> None:
    """One error frame, and a close frame that says of what kind it was."""
    for frame in frames:
        await socket.wire.send(frame)
    assert await socket.ended() == (code, reason)
    assert socket.error["reason"] == reason
    assert socket.error["request_id"]


async def test_what_is_too_large_is_not_read(socket: Socket) -> None:
    """The bound on bodies holds for frames."""
    await socket.send(open={"idempotencyKey": "x" * 70_000})
    assert (await socket.ended())[0] == 1009


async def test_who_has_a_busy_session_is_told_to_try_again(shim: Shim, socket: Socket) -> None:
    """A session has one Chat at a time."""
    await socket.send(open={})
    session = (await socket.until("sessionOpened"))["sessionId"]
    async with socket_to(shim.url) as second:
        await second.send(open={"sessionId": session})
        assert await second.ended() == (1013, "SESSION_BUSY")
        assert second.error["retry_after"] > 0


async def test_a_foreign_page_gets_no_connection(shim: Shim) -> None:
    """Browsers send the Origin with a handshake, and ask nobody else."""
    for origin in ("https://evil.example", "null", shim.url.replace("http", "ftp")):
        with pytest.raises(InvalidStatus) as refused:
            async with socket_to(shim.url, additional_headers={"origin": origin}):
                pass
        assert refused.value.response.status_code == 403
    async with socket_to(shim.url, additional_headers={"origin": shim.url}) as own:
        await own.send(open={})
        assert await own.until("sessionOpened")


async def test_a_key_is_shown_by_header_or_subprotocol() -> None:
    """Never answered, and never by cookie or query; who shows none, or a wrong one, is told so."""
    acme, key = tenant("acme")
    async with (
        running_service(tenants=[acme], pool=NO_SPARES) as service,
        shim_before(service) as shim,
    ):
        for options, answered in ((_by_subprotocol(key), "warmline.v1"), (_by_header(key), None)):
            async with socket_to(shim.url, **options) as socket:
                await socket.send(open={})
                assert await socket.until("sessionOpened")
                assert socket.wire.subprotocol == answered
        for options in (
            {},
            {"additional_headers": {"cookie": f"authorization=Bearer {key}"}},
            {"query": f"?authorization={key}&key={key}"},
            _by_subprotocol("wl_wrong_wrong"),
            _by_header("wl_wrong_wrong"),
        ):
            async with socket_to(shim.url, **options) as socket:
                await socket.send(open={})
                assert await socket.ended() == (1008, "KEY_INVALID")
                assert socket.error["status"] == 401
        async with socket_to(shim.url, subprotocols=["warmline.v1", "warmline.key.***"]) as socket:
            assert await socket.ended() == (1008, "KEY_INVALID")


def _by_subprotocol(key: str) -> dict[str, Any]:
    encoded = base64.urlsafe_b64encode(key.encode()).decode().rstrip("=")
    return {"subprotocols": ["warmline.v1", f"warmline.key.{encoded}"]}


def _by_header(key: str) -> dict[str, Any]:
    return {"additional_headers": {"authorization": f"Bearer {key}"}}


@pytest.mark.parametrize(
    ("failure", "code"),
    [
        (Failure(401, "KEY_INVALID", ""), 1008),
        (Failure(404, "SESSION_NOT_FOUND", ""), 1008),
        (Failure(413, "MESSAGE_TOO_LARGE", ""), 1009),
        (Failure(500, "INTERNAL", ""), 1011),
        (Failure(429, "QUEUE_FULL", "", retry_after=1), 1013),
        (Failure(503, "DRAINING", ""), 1013),
        (Failure(504, "TIMEOUT", ""), 1013),
    ],
)
def test_a_close_code_says_whether_to_try_again(failure: Failure, code: int) -> None:
    """1013 where that makes sense, and nowhere else."""
    assert close_code_of(failure) == code
