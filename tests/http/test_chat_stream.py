"""`/v1/chat/stream`: what comes of a message as server-sent events, cut and gone on with; the real CLI."""

import asyncio
import json
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest
from chatting import STREAM, Told, events_of, kinds, parsed, read, say, text_of, until
from conversing import Model
from golden import TURN, Golden
from running import running_service
from shared import ServiceThread, shared_service
from shimming import Shim, shim_before, shim_to

pytestmark = [pytest.mark.real_cli, pytest.mark.shared_service]

NO_SPARES = {"min_spares": 0, "max_spares": 0}
SLOW = "::pace 20ms\n::text 60"


@pytest.fixture(scope="module")
def thread() -> Iterator[ServiceThread]:
    """The service that this module shares."""
    with shared_service(Model()) as thread:
        yield thread


@pytest.fixture
async def shim(thread: ServiceThread) -> AsyncIterator[Shim]:
    """A shim before it."""
    async with shim_to(f"127.0.0.1:{thread.port}", heartbeat=0.3) as shim:
        yield shim


@pytest.fixture(scope="module")
def begun() -> list[str]:
    """The sessions that this module has begun for all."""
    return []


@pytest.fixture
async def session(shim: Shim, begun: list[str]) -> str:
    """A session that has its process already."""
    if not begun:
        begun.append((await say(shim.http, "hi"))[0].data["sessionId"])
    return begun[0]


async def test_the_stream_is_as_it_always_was(shim: Shim) -> None:
    """Kinds, names and order of a whole turn; ids, times, counts and the cutting of deltas apart."""
    golden = Golden()
    for event in await say(shim.http, TURN):
        told = {"id": event.id, **event.data}
        golden.take(event.kind, told, delta=event.kind.endswith("_delta"))
    golden.check("chat_stream.txt")


async def test_it_begins_before_the_model_answers_and_says_its_end(shim: Shim) -> None:
    """The status, `x-session-id` and `session_opened` are there while the model waits; heartbeats follow."""
    request = {"message": "::delay 1500ms\n::say hi"}
    async with shim.http.stream("POST", STREAM, json=request) as response:
        assert response.headers["content-type"] == "text/event-stream; charset=utf-8"
        assert response.headers["x-accel-buffering"] == "no"
        raw = "".join([piece async for piece in response.aiter_text()])
    events = [event for text in raw.split("\n\n") if (event := parsed(text))]
    assert kinds(events)[:3] == ["session_opened", "turn_queued", "turn_started"]
    assert kinds(events)[-2:] == ["turn_completed", "done"]
    assert events[0].data["sessionId"] == response.headers["x-session-id"]
    assert events[-1].data["ended"] is True
    assert raw.index("event: turn_started") < raw.index(": still here") < raw.index("event: text")


@pytest.mark.parametrize("count", [1, 2, 9])
async def test_a_cut_stream_goes_on_by_its_last_event_alone(
    shim: Shim, session: str, count: int
) -> None:
    """In the middle of a turn: what was had and what comes then is the uncut run, and nothing ran twice."""
    request = {"message": SLOW, "session_id": session}
    first = await until(shim.http, "POST", count, json=request)
    last = next(event.id for event in reversed(first) if event.id)
    rest = await read(shim.http, "GET", headers={"last-event-id": last})
    seen = [event for event in (*first, *rest) if event.data.get("seq")]
    numbers = [int(event.data["seq"]) for event in seen]
    assert numbers == sorted(set(numbers))
    (whole,) = [event.body["content"][0]["text"] for event in seen if event.kind == "message"]
    assert text_of(seen) == whole
    assert kinds(rest)[-2:] == ["turn_completed", "done"]
    assert kinds(seen).count("turn_queued") == 1


async def test_what_was_told_to_its_end_is_not_told_again(shim: Shim, session: str) -> None:
    """204 is what keeps an `EventSource` from asking for ever."""
    events = await say(shim.http, "hi", session_id=session)
    for event in events[-2:]:
        answer = await shim.http.get(STREAM, headers={"last-event-id": event.id})
        assert (answer.status_code, answer.content) == (204, b"")


async def test_a_request_that_is_sent_again_says_nothing_again(shim: Shim, session: str) -> None:
    """As `EventSource` does it: the same address with `Last-Event-ID`."""
    params = {"message": SLOW, "session_id": session}
    first = await until(shim.http, "GET", 4, params=params)
    last = first[-1].id
    rest = await read(shim.http, "GET", params=params, headers={"last-event-id": last})
    assert {event.data["turnId"] for event in rest} == {first[-1].data["turnId"]}
    assert "turn_queued" not in kinds(rest)
    assert kinds(rest)[-1] == "done"


async def test_a_key_makes_sending_safe(shim: Shim, session: str) -> None:
    """Without any event had: the second sending is attached to the turn of the first."""
    first = await say(shim.http, "hi", session_id=session, idempotency_key="once")
    again = await say(shim.http, "hi", idempotency_key="once")
    assert kinds(again)[0] == "turn_attached"
    assert again[-1].data == first[-1].data


async def test_a_conversation_goes_on_and_changes_its_model(shim: Shim) -> None:
    """`session_id` names it; `model` with it is an update, so that a page may send both each time."""
    first = await say(shim.http, "hi", model="sonnet", system="You are terse.")
    opened = first[0].body
    params = {"message": "::echo model", "session_id": opened["sessionId"], "model": "haiku"}
    second = await read(shim.http, "GET", params=params)
    assert second[0].body["sessionId"] == opened["sessionId"]
    assert "sonnet" in opened["model"]
    assert "haiku" in text_of(second)


async def test_whoever_goes_away_stops_nothing(shim: Shim, session: str) -> None:
    """Disconnect is not cancel: a follower sees the turn to its end."""
    await until(shim.http, "POST", 4, json={"message": SLOW, "session_id": session})
    async with shim.http.stream("GET", STREAM, params={"session_id": session}) as response:
        async with asyncio.timeout(60):
            async for event in events_of(response):
                if event.kind == "turn_completed":
                    break
    assert event.body["stopReason"] == "STOP_REASON_END_TURN"


async def test_a_session_is_followed_from_now_on(shim: Shim, session: str) -> None:
    """With `session_id` alone nothing is said, and all that comes is told, turn after turn."""
    seen: list[Told] = []
    async with shim.http.stream("GET", STREAM, params={"session_id": session}) as response:
        events = events_of(response)
        seen.append(await anext(events))
        for text in ("second", "third"):
            await say(shim.http, text, session_id=session)
        async for event in events:
            seen.append(event)
            if kinds(seen).count("turn_completed") == 2:
                break
    assert kinds(seen)[0] == "session_opened"
    said = [event.body["text"] for event in seen if event.kind == "turn_queued"]
    assert said == ["second", "third"]


async def test_a_turn_that_fails_is_told_in_both_ways(shim: Shim, session: str) -> None:
    """As the event it is, and as `error` for whoever listens to that alone; then `done`."""
    events = await say(shim.http, "::error 400", session_id=session)
    assert kinds(events)[-3:] == ["turn_failed", "error", "done"]
    error = events[-2].data["error"]
    assert error["message"] == events[-3].body["status"]["message"]
    assert error["request_id"]


BAD: list[tuple[dict[str, Any], int, str]] = [
    ({}, 400, "message"),
    ({"message": "x", "surprise": 1}, 400, "surprise"),
    ({"message": "x", "detail": "all"}, 400, "detail"),
    ({"message": "\ud800"}, 400, "message"),
    ({"message": "x", "config": {"colour": "red"}}, 400, "config"),
    ({"message": "x", "config": {"\ud800": 1}}, 400, "config"),
    ({"message": "x", "config": {"limits": {"turnTimeout": "\ud800"}}}, 400, "config"),
    ({"message": "x", "config": {"limits": {"maxBudgetUsd": 10**400}}}, 400, "config"),
    ({"message": "x", "config": {"model": "haiku"}, "model": "haiku"}, 400, "model"),
    ({"message": "x", "config": {"systemPrompt": {"append": "y"}}, "system": "z"}, 400, "system"),
    ({"message": "x", "session_id": "../etc"}, 400, "session_id"),
    ({"message": "x", "model": "gpt"}, 404, ""),
    ({"message": "x", "session_id": "00000000-0000-0000-0000-000000000000"}, 404, ""),
    ({"session_id": "00000000-0000-0000-0000-000000000000"}, 404, ""),
]


@pytest.mark.parametrize(("body", "status", "name"), BAD)
async def test_what_fails_before_the_stream_has_its_status(
    shim: Shim, body: dict[str, Any], status: int, name: str
) -> None:
    """And names the field."""
    headers = {"content-type": "application/json"}
    answer = await shim.http.post(STREAM, content=json.dumps(body), headers=headers)
    assert answer.status_code == status
    assert not name or name in answer.json()["error"]["fields"]


@pytest.mark.parametrize(
    ("last", "status"),
    [
        ("x", 400),
        ("1-2", 400),
        ("1-2.zzz", 400),
        ("99999999999999999999-1.00000000-0000-0000-0000-000000000000", 400),
        ("1-1.00000000-0000-0000-0000-000000000000", 404),
    ],
)
async def test_a_place_that_is_none_is_refused(shim: Shim, last: str, status: int) -> None:
    """Before the stream begins."""
    answer = await shim.http.get(STREAM, headers={"last-event-id": last})
    assert answer.status_code == status


async def test_a_place_beyond_the_end_is_refused(shim: Shim, session: str) -> None:
    """And so is that of another session than the one that is asked for."""
    place = (await say(shim.http, "hi", session_id=session))[1].id
    epoch, _, names = place.partition("-")
    beyond = f"{epoch}-999.{names.partition('.')[2]}"
    answer = await shim.http.get(STREAM, headers={"last-event-id": beyond})
    assert (answer.status_code, answer.json()["error"]["reason"]) == (400, "FIELD_INVALID")
    other = {"session_id": "00000000-0000-0000-0000-000000000000"}
    answer = await shim.http.get(STREAM, params=other, headers={"last-event-id": place})
    assert answer.status_code == 400


async def test_a_service_that_goes_away_is_told() -> None:
    """As `error` and `done` on the stream, however little of the turn was told."""
    seen: list[Told] = []
    async with running_service(pool=NO_SPARES, drain_grace=0.2) as service:
        async with shim_before(service) as shim:
            request = {"message": "::pace 50ms\n::text 2000"}
            async with shim.http.stream("POST", STREAM, json=request) as response:
                async for event in events_of(response):
                    seen.append(event)
                    if event.kind == "turn_started":
                        stopping = asyncio.create_task(service.stop())
            await stopping
    assert kinds(seen)[-2:] == ["error", "done"]
    assert seen[-2].data["error"]["request_id"]
