"""What needs a yes is asked for, and answered on the stream or from elsewhere; with the real CLI."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any

import grpc
import pytest
from google.protobuf.json_format import MessageToDict, ParseDict
from parking import client_of, end_of_turn, failure, kill_cli, say
from running import data_directory, service_in
from warmline.v1 import chat_service_pb2 as chat_pb
from warmline.v1 import events_pb2 as pb
from warmline.v1 import session_config_pb2 as config_pb
from warmline_client import Client, Turn, WarmlineError
from warmline_service.server import Service

pytestmark = pytest.mark.real_cli

# Starting them takes longer than all else here.
NO_SPARES = {"min_spares": 0, "max_spares": 0}
WRITE = '::tool Write {"file_path":"f.txt","content":"x"}\n::say done'
RESOLVED = pb.ApprovalResolved


def _config(**approvals: Any) -> config_pb.SessionConfig:
    return ParseDict({"approvals": {"mode": "MODE_STREAM", **approvals}}, config_pb.SessionConfig())


@pytest.fixture
async def service() -> AsyncIterator[Service]:
    """A service of the test's own."""
    with data_directory() as directory:
        async with service_in(directory, pool=NO_SPARES) as service:
            yield service


@pytest.fixture
async def client(service: Service) -> AsyncIterator[Client]:
    """Its client."""
    async with client_of(service) as client:
        yield client


async def _until(turn: Turn, kind: str) -> list[pb.Event]:
    """A turn's events up to one of a kind."""
    events = []
    async with asyncio.timeout(60):
        async for event in turn:
            events.append(event)
            if event.HasField(kind):  # type: ignore[arg-type]  # the stub wants a literal
                return events
    raise AssertionError(f"no {kind} among {[e.WhichOneof('kind') for e in events]}")


async def _rest(turn: Turn) -> list[pb.Event]:
    async with asyncio.timeout(60):
        return [event async for event in turn]


async def _asked(turn: Turn) -> pb.ApprovalRequested:
    return (await _until(turn, "approval_requested"))[-1].approval_requested


def _outcomes(events: list[pb.Event]) -> list[int]:
    return [e.approval_resolved.outcome for e in events if e.HasField("approval_resolved")]


def _results(events: list[pb.Event]) -> list[tuple[str, bool]]:
    return [
        (e.tool_result.text, e.tool_result.is_error) for e in events if e.HasField("tool_result")
    ]


async def test_a_tool_runs_when_the_caller_says_yes(client: Client) -> None:
    """The question says what it is for; the turn waits and goes on."""
    async with client.chat(config=_config()) as chat:
        turn = await chat.send(WRITE)
        before = await _until(turn, "approval_requested")
        asked = before[-1].approval_requested
        assert (asked.tool_name, MessageToDict(asked.input)["content"]) == ("Write", "x")
        assert asked.tool_call_id == next(e.tool_call.id for e in before if e.HasField("tool_call"))
        await chat.allow(asked.approval_id)
        events = await _rest(turn)
    assert _outcomes(events) == [RESOLVED.OUTCOME_ALLOWED]
    assert [failed for _, failed in _results(events)] == [False]
    assert events[-1].turn_completed.result == "done"


async def test_a_yes_may_change_what_the_tool_is_given(client: Client) -> None:
    """What the caller wrote is run, not what the model wrote."""
    async with client.chat(config=_config()) as chat:
        turn = await chat.send('::tool Bash {"command":"touch a"}\n::say done')
        asked = await _asked(turn)
        await chat.allow(asked.approval_id, updated_input={"command": "echo changed"})
        events = await _rest(turn)
    assert _results(events) == [("changed", False)]


async def test_a_no_tells_the_model_why(client: Client) -> None:
    """The tool does not run, and the turn goes on with the caller's words as its result."""
    async with client.chat(config=_config()) as chat:
        turn = await chat.send(WRITE)
        await chat.deny((await _asked(turn)).approval_id, "not in this house")
        events = await _rest(turn)
    assert _outcomes(events) == [RESOLVED.OUTCOME_DENIED]
    ((text, failed),) = _results(events)
    assert failed
    assert "not in this house" in text
    denied = events[-1].turn_completed.permission_denials
    assert [each.tool_name for each in denied] == ["Write"]


async def test_a_no_may_stop_the_turn(client: Client) -> None:
    """It ends as an interrupted one; the session goes on."""
    async with client.chat(config=_config()) as chat:
        turn = await chat.send(WRITE)
        await chat.deny((await _asked(turn)).approval_id, "stop", interrupt=True)
        events = await _rest(turn)
        assert events[-1].turn_completed.stop_reason == pb.STOP_REASON_INTERRUPTED
        assert (await say(chat, "::say on"))[-1].turn_completed.result == "on"


async def test_what_is_remembered_is_not_asked_again(client: Client, service: Service) -> None:
    """Not in this process and, since it is the session's, not in its next one."""
    text = '::tool Bash {"command":"touch a"}\n::say done'
    async with client.chat(config=_config()) as chat:
        turn = await chat.send(text)
        await chat.allow((await _asked(turn)).approval_id, remember=True)
        await _rest(turn)
        again = await say(chat, text)
        assert not [e for e in again if e.HasField("approval_requested")]
        session_id = chat.session_id
    session = await client.session(session_id)
    assert any(rule.startswith("Bash(touch") for rule in session.config.tools.allowed)


async def test_nobody_answers_in_time(client: Client) -> None:
    """It is denied by itself; the silence is not the turn's, so it does not stall."""
    config = _config(timeout="3s")
    config.limits.stall_timeout.seconds = 1
    async with client.chat(config=config) as chat:
        events = await say(chat, WRITE)
    assert _outcomes(events) == [RESOLVED.OUTCOME_EXPIRED]
    assert events[-1].turn_completed.result == "done"


async def test_without_approvals_what_needs_one_is_denied(client: Client) -> None:
    """A caller who does not take part is not waited for."""
    async with client.chat() as chat:
        events = await say(chat, WRITE)
    assert not [e for e in events if e.HasField("approval_requested")]
    assert [failed for _, failed in _results(events)] == [True]
    assert events[-1].turn_completed.result == "done"


async def test_a_question_outlives_its_stream_and_another_client_answers(
    client: Client, service: Service
) -> None:
    """It is told again by the cursor and to who opens the session; the first answer counts."""
    async with client.chat(config=_config()) as chat:
        turn = await chat.send(WRITE)
        asked = await _asked(turn)
        session_id = chat.session_id
    async with client.chat(session_id=session_id) as chat:
        assert [each.approval_id for each in chat.opened.open_approvals] == [asked.approval_id]
        decision = chat_pb.ApprovalDecision(approval_id=asked.approval_id, allow=chat_pb.Allow())
        async with client_of(service) as other:
            await other.answer_approval(session_id, decision)
            with pytest.raises(WarmlineError) as caught:
                await other.answer_approval(session_id, decision)
        assert caught.value.reason == "APPROVAL_NOT_FOUND"
    assert (await end_of_turn(client, session_id)).result == "done"


async def test_an_interrupt_withdraws_the_question(client: Client) -> None:
    """Nobody is left waiting, and a late answer is told that it is one."""
    async with client.chat(config=_config()) as chat:
        turn = await chat.send(WRITE)
        asked = await _asked(turn)
        await chat.interrupt()
        events = await _rest(turn)
        assert _outcomes(events) == [RESOLVED.OUTCOME_WITHDRAWN]
        await chat.allow(asked.approval_id)
        assert (await say(chat, "::say on"))[-1].turn_completed.result == "on"
        assert [e.notice.code for e in chat.notices] == ["approval_unknown"]


async def test_the_model_asks_the_user(client: Client) -> None:
    """A question travels the same way, and its answer is the tool's result."""
    question = (
        '::tool AskUserQuestion {"questions":[{"question":"Which one?","header":"One",'
        '"multiSelect":false,"options":[{"label":"Red","description":"r"},'
        '{"label":"Blue","description":"b"}]}]}\n::say done'
    )
    async with client.chat(config=_config()) as chat:
        turn = await chat.send(question)
        asked = await _asked(turn)
        assert asked.tool_name == "AskUserQuestion"
        await chat.allow(asked.approval_id, answers={"Which one?": "Blue"})
        events = await _rest(turn)
    ((text, failed),) = _results(events)
    assert not failed
    assert "Blue" in text


async def test_a_process_that_dies_withdraws_the_question(client: Client, service: Service) -> None:
    """The turn fails by name; nobody waits for ever."""
    async with client.chat(config=_config()) as chat:
        turn = await chat.send(WRITE)
        await _asked(turn)
        kill_cli(service, chat.session_id)
        events = await _rest(turn)
    assert _outcomes(events) == [RESOLVED.OUTCOME_WITHDRAWN]
    assert failure(events).reason == "CLI_CRASHED"


@pytest.mark.parametrize(
    ("frame", "field"),
    [
        ({"approvalDecision": {"approvalId": "x", "allow": {}}}, "approval_decision.approval_id"),
        (
            {"approvalDecision": {"approvalId": "00000000-0000-0000-0000-000000000000"}},
            "approval_decision",
        ),
        ({"clientToolResult": {"callId": "x"}}, "client_tool_result.call_id"),
    ],
)
async def test_a_bad_answer_is_refused_by_its_field(
    client: Client, frame: dict[str, Any], field: str
) -> None:
    """A frame that says nothing ends the stream, as every bad frame does."""
    call = client._chat.Chat()
    await call.write(chat_pb.ChatRequest(open=chat_pb.Open()))
    await call.write(ParseDict(frame, chat_pb.ChatRequest()))
    with contextlib.suppress(grpc.RpcError):
        while isinstance(await call.read(), chat_pb.ChatResponse):
            pass
    assert await call.code() == grpc.StatusCode.INVALID_ARGUMENT
    assert str(await call.details()).startswith(f"{field}: ")
