"""Tools that the caller runs: declared with the session, called over the stream; with the real CLI."""

import asyncio
import base64
from collections.abc import AsyncIterator
from typing import Any

import pytest
from conversing import PNG, Model
from google.protobuf.json_format import MessageToDict, ParseDict
from parking import end_of_turn, say, start_of
from running import running_client
from warmline.v1 import chat_service_pb2 as chat_pb
from warmline.v1 import events_pb2 as pb
from warmline.v1 import session_config_pb2 as config_pb
from warmline_client import Client, Turn

pytestmark = pytest.mark.real_cli

RETURNED = pb.ClientToolReturned
SCHEMA = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
CALL = '::tool mcp__client__weather {"city":"Basel"}\n'


@pytest.fixture
def model(monkeypatch: pytest.MonkeyPatch) -> Model:
    """The model of the test's service."""
    made = Model()
    monkeypatch.setattr("warmline_service.server.make_provider", lambda *_: made.provider)
    return made


@pytest.fixture
async def client(model: Model) -> AsyncIterator[Client]:
    """A service of the test's own, without spares: starting them takes longer than all else here."""
    async with running_client(pool={"min_spares": 0, "max_spares": 0}) as client:
        yield client


def _config(timeout: str = "60s", *, read_only: bool = False) -> config_pb.SessionConfig:
    tool: dict[str, Any] = {
        "name": "weather",
        "description": "Tells the weather",
        "inputSchema": SCHEMA,
    }
    tool |= {"timeout": timeout, "readOnly": read_only}
    return ParseDict({"clientTools": [tool]}, config_pb.SessionConfig())


async def _calls(turn: Turn, count: int) -> list[pb.ClientToolCalled]:
    """The next calls of the caller's tools."""
    found: list[pb.ClientToolCalled] = []
    async with asyncio.timeout(60):
        async for event in turn:
            if event.HasField("client_tool_called"):
                found.append(event.client_tool_called)
                if len(found) == count:
                    return found
    raise AssertionError(f"{len(found)} calls of {count}")


async def _rest(turn: Turn) -> list[pb.Event]:
    async with asyncio.timeout(60):
        return [event async for event in turn]


def _outcomes(events: list[pb.Event]) -> list[int]:
    return [e.client_tool_returned.outcome for e in events if e.HasField("client_tool_returned")]


def _results(events: list[pb.Event]) -> list[tuple[str, bool]]:
    return [
        (e.tool_result.text, e.tool_result.is_error) for e in events if e.HasField("tool_result")
    ]


async def test_the_caller_runs_its_tool(client: Client, model: Model) -> None:
    """The model is told of the tool, and of what it gave."""
    async with client.chat(config=_config()) as chat:
        turn = await chat.send(CALL + "::say done")
        (call,) = await _calls(turn, 1)
        assert (call.name, MessageToDict(call.input)) == ("weather", {"city": "Basel"})
        await chat.tool_result(call.call_id, "sunny")
        events = await _rest(turn)
    assert _outcomes(events) == [RETURNED.OUTCOME_RETURNED]
    assert _results(events) == [("sunny", False)]
    assert events[-1].turn_completed.result == "done"
    told = {tool["name"]: tool for tool in model.asked[0]["tools"]}["mcp__client__weather"]
    assert told["description"] == "Tells the weather"
    assert told["input_schema"]["required"] == ["city"]


async def test_a_primed_spare_takes_the_callers_tools() -> None:
    """Nothing has to be said before the first turn, so the start is the best there is."""
    async with running_client() as client, client.chat(config=_config()) as chat:
        receipt = start_of(await say(chat, "hi"))
    assert (receipt.start, list(receipt.misses)) == (pb.START_KIND_WARM, [])


async def test_several_calls_wait_side_by_side(client: Client) -> None:
    """Of a tool that changes nothing; each gets its own result, whatever the order of the answers."""
    async with client.chat(config=_config(read_only=True)) as chat:
        turn = await chat.send(CALL + CALL.replace("Basel", "Bern") + "::say done")
        for call in reversed(await _calls(turn, 2)):
            await chat.tool_result(call.call_id, f"in {call.input['city']}")
        events = await _rest(turn)
    assert sorted(_results(events)) == [("in Basel", False), ("in Bern", False)]


async def test_a_tool_that_fails_says_so_to_the_model(client: Client) -> None:
    """The turn goes on."""
    async with client.chat(config=_config()) as chat:
        turn = await chat.send(CALL + "::say done")
        (call,) = await _calls(turn, 1)
        await chat.tool_result(call.call_id, "no such city", is_error=True)
        events = await _rest(turn)
    assert _outcomes(events) == [RETURNED.OUTCOME_FAILED]
    ((text, failed),) = _results(events)
    assert failed
    assert "no such city" in text
    assert events[-1].turn_completed.result == "done"


async def test_a_call_without_a_result_fails_in_time(client: Client) -> None:
    """Its own bound counts, not the turn's silence; a late result is told that it is one."""
    config = _config("2s")
    config.limits.stall_timeout.seconds = 1
    async with client.chat(config=config) as chat:
        turn = await chat.send(CALL + "::say done")
        (call,) = await _calls(turn, 1)
        events = await _rest(turn)
        await chat.tool_result(call.call_id, "too late")
        await say(chat, "hi")
        assert [e.notice.code for e in chat.notices] == ["client_call_unknown"]
    assert _outcomes(events) == [RETURNED.OUTCOME_EXPIRED]
    assert [failed for _, failed in _results(events)] == [True]


async def test_a_call_outlives_its_stream(client: Client) -> None:
    """Who comes back is told what waits, and answers it."""
    async with client.chat(config=_config()) as chat:
        turn = await chat.send(CALL + "::say done")
        await _calls(turn, 1)
        session_id = chat.session_id
    async with client.chat(session_id=session_id) as chat:
        (call,) = chat.opened.open_client_calls
        await chat.tool_result(call.call_id, "sunny")
        assert (await end_of_turn(client, session_id)).result == "done"


async def test_a_tool_may_give_a_picture(client: Client, model: Model) -> None:
    """It reaches the model as one."""
    image = chat_pb.Media(media_type="image/png", data=base64.b64decode(PNG))
    async with client.chat(config=_config()) as chat:
        turn = await chat.send(CALL + "::say done")
        (call,) = await _calls(turn, 1)
        await chat.tool_result(call.call_id, "look", images=[image])
        await _rest(turn)
    results = [block for each in model.said() for block in each["content"]]
    content: Any = next(each for each in results if each["type"] == "tool_result")["content"]
    assert [part["type"] for part in content][:2] == ["text", "image"]
