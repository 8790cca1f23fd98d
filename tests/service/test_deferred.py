"""An approval that nobody answers for long: the process goes, and the turn goes on; with the real CLI."""

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import pytest
from deferring import CALL, READ, SCRIPT, asks, config_of, outcomes, parks, ran, rest, results, sent
from parking import client_of, conversation_of, failure, kill_cli, notices, say, start_of
from running import data_directory, service_in, text_of
from warmline.v1 import chat_service_pb2 as chat_pb
from warmline.v1 import events_pb2 as pb
from warmline.v1 import session_service_pb2 as session_pb
from warmline_client import Client, Conversation, WarmlineError
from warmline_service.server import Service
from warmline_service.sessions._outage import store_down

pytestmark = pytest.mark.real_cli

QUICK: dict[str, Any] = {
    "pool": {"min_spares": 0, "max_spares": 0},
    "limits": {"approval_park": 0.2},
}
RESOLVED = pb.ApprovalResolved


@pytest.fixture
async def service() -> AsyncIterator[Service]:
    """A service of the test's own."""
    with data_directory() as directory:
        async with service_in(directory, **QUICK) as service:
            yield service


@pytest.fixture
async def client(service: Service) -> AsyncIterator[Client]:
    """Its client."""
    async with client_of(service) as client:
        yield client


async def test_the_turn_goes_on_in_another_process(client: Client, service: Service) -> None:
    """No process waits; another client answers, the tool runs once, and the model knows no difference."""
    async with client.chat(config=config_of()) as chat:
        turn = await chat.send(SCRIPT)
        asked = await parks(turn)
        live = conversation_of(service, chat.session_id)
        assert live is not None
        assert not live.hot
        session = await client.session(chat.session_id)
        assert session.state == session_pb.SESSION_STATE_DEFERRED
        assert [each.approval_id for each in session.open_approvals] == [asked.approval_id]
        async with client_of(service) as other:
            decision = chat_pb.ApprovalDecision(approval_id=asked.approval_id)
            decision.allow.SetInParent()
            await other.answer_approval(chat.session_id, decision)
        events = await rest(turn)
        assert outcomes(events) == [RESOLVED.OUTCOME_ALLOWED]
        assert start_of(events).start == pb.START_KIND_RESUMED
        assert not notices(events)
        told = sent(events)
        assert [each["type"] for each in told] == ["tool_use", "tool_result"]
        assert told[0]["id"] == told[1]["tool_use_id"] == asked.tool_call_id
        assert events[-1].turn_completed.model_requests == 2
        assert await ran(chat) == "ran"


async def test_a_yes_may_change_what_the_tool_is_given(client: Client) -> None:
    """What the caller wrote is run, in place of what the model wrote."""
    async with client.chat(config=config_of()) as chat:
        turn = await chat.send(SCRIPT)
        asked = await parks(turn)
        await chat.allow(asked.approval_id, updated_input={"command": "echo other >> log"})
        await rest(turn)
        assert await ran(chat) == "other"


async def test_a_yes_is_remembered(client: Client) -> None:
    """The next process does not ask again."""
    text = '::tool Bash {"command":"touch a"}\n::say done'
    async with client.chat(config=config_of()) as chat:
        turn = await chat.send(text)
        await chat.allow((await parks(turn)).approval_id, remember=True)
        assert [failed for _, failed in results(await rest(turn))] == [False]
        again = await say(chat, text)
        assert not [e for e in again if e.HasField("approval_requested")]


async def test_a_no_tells_the_model_why(client: Client) -> None:
    """The tool does not run, and the turn goes on with the caller's words as its result."""
    async with client.chat(config=config_of()) as chat:
        turn = await chat.send(SCRIPT)
        await chat.deny((await parks(turn)).approval_id, "not in this house")
        events = await rest(turn)
        assert outcomes(events) == [RESOLVED.OUTCOME_DENIED]
        ((text, failed),) = results(events)
        assert failed
        assert "not in this house" in text
        assert [each["type"] for each in sent(events)] == ["tool_use", "tool_result"]
        assert await ran(chat) == ""


async def test_a_no_may_stop_the_turn(client: Client) -> None:
    """It ends as an interrupted one; the session goes on."""
    async with client.chat(config=config_of()) as chat:
        turn = await chat.send(SCRIPT)
        await chat.deny((await parks(turn)).approval_id, "stop", interrupt=True)
        events = await rest(turn)
        assert events[-1].turn_completed.stop_reason == pb.STOP_REASON_INTERRUPTED
        assert await ran(chat) == ""


async def test_nobody_answers_in_time(client: Client) -> None:
    """It is denied by itself, and the turn goes on; its own bounds have rested meanwhile."""
    bounds = {"turnTimeout": "12s", "stallTimeout": "5s"}
    approvals = {"mode": "MODE_DEFER", "timeout": "13s"}
    async with client.chat(config=config_of(limits=bounds, approvals=approvals)) as chat:
        events = await say(chat, f"{CALL}::say done")
    assert outcomes(events) == [RESOLVED.OUTCOME_EXPIRED]
    assert notices(events) == ["turn_parked"]
    assert events[-1].turn_completed.result == "done"


async def test_the_model_asks_the_user(client: Client) -> None:
    """A question travels the same way."""
    question = (
        '::tool AskUserQuestion {"questions":[{"question":"Which one?","header":"One",'
        '"multiSelect":false,"options":[{"label":"Red","description":"r"},'
        '{"label":"Blue","description":"b"}]}]}\n::say done'
    )
    async with client.chat(config=config_of()) as chat:
        turn = await chat.send(question)
        asked = await parks(turn)
        assert asked.tool_name == "AskUserQuestion"
        await chat.allow(asked.approval_id, answers={"Which one?": "Blue"})
        events = await rest(turn)
    ((text, failed),) = results(events)
    assert not failed
    assert "Blue" in text
    assert events[-1].turn_completed.result == "done"


async def test_what_is_set_up_holds_for_the_rest_of_the_turn(client: Client) -> None:
    """Model, prompt, effort and agents are the session's in the process that goes on."""
    config = config_of(
        model="haiku",
        systemPrompt={"replace": "PROMPT-MARK"},
        reasoning={"effort": "EFFORT_HIGH"},
        agents={"helper": {"description": "AGENT-MARK", "prompt": "p"}},
    )
    async with client.chat(config=config) as chat:
        turn = await chat.send(f"{CALL}::echo request")
        await chat.allow((await parks(turn)).approval_id)
        events = await rest(turn)
    request = json.loads(text_of(events))
    assert "haiku" in request["model"]
    assert "PROMPT-MARK" in json.dumps(request["system"])
    assert "AGENT-MARK" in json.dumps(request)
    assert request["output_config"]["effort"] == "high"


@pytest.mark.parametrize(
    "fields",
    [
        {"profile": "PROFILE_BARE", "tools": {"available": {"names": ["Bash"]}}},
        {"workspace": {"name": "shared"}, "limits": {"maxTurns": 5}},
    ],
)
async def test_it_is_so_however_the_session_is_set_up(
    client: Client, fields: dict[str, Any]
) -> None:
    """In a process of the session's kind, in its directory, with what it had written there before."""
    async with client.chat(config=config_of(**fields)) as chat:
        show = '::tool Bash {"command":"echo ran >> log; cat log"}\n'
        turn = await chat.send(f"{CALL}::say between\n{show}::say done")
        for _ in range(2):
            await chat.allow((await parks(turn)).approval_id)
        events = await rest(turn)
        assert events[-1].turn_completed.result == "done"
        assert results(events)[-1] == ("ran\nran", False)


async def test_a_plan_is_approved_hours_later(client: Client) -> None:
    """The tool that leaves a mode finds it, and its mode is left."""
    config = config_of(permissionMode="PERMISSION_MODE_PLAN")
    async with client.chat(config=config) as chat:
        turn = await chat.send('::tool ExitPlanMode {"plan":"PLAN"}\n::say done')
        asked = await parks(turn)
        assert asked.tool_name == "ExitPlanMode"
        await chat.allow(asked.approval_id)
        events = await rest(turn)
    assert [failed for _, failed in results(events)] == [False]


async def test_several_questions_of_one_turn(client: Client) -> None:
    """A turn may be parked as often as it asks, and each tool runs once."""
    async with client.chat(config=config_of()) as chat:
        turn = await chat.send(f"{CALL}::say between\n{CALL}::say done")
        for _ in range(2):
            await chat.allow((await parks(turn)).approval_id)
        events = await rest(turn)
        assert events[-1].turn_completed.result == "done"
        assert events[-1].turn_completed.model_requests == 3
        assert await ran(chat) == "ran\nran"


async def test_of_calls_that_are_made_together_the_last_one_is_parked(
    client: Client, service: Service
) -> None:
    """Another process could go on from one alone: until then this one is kept."""
    async with client.chat(config=config_of()) as chat:
        turn = await chat.send(f"{CALL}{CALL}::say done")
        first = await asks(turn)
        await asyncio.sleep(1)
        assert _hot(service, chat)
        await chat.allow(first.approval_id)
        await chat.allow((await parks(turn)).approval_id)
        assert (await rest(turn))[-1].turn_completed.result == "done"
        assert await ran(chat) == "ran\nran"


async def test_a_sub_agent_keeps_its_process(client: Client, service: Service) -> None:
    """What it has said so far no other process would know."""
    task = {"subagent_type": "general-purpose", "description": "d", "prompt": f"{CALL}::say sub"}
    async with client.chat(config=config_of()) as chat:
        turn = await chat.send(f"::tool Agent {json.dumps(task)}\n::say done")
        asked = await asks(turn)
        await asyncio.sleep(1)
        assert _hot(service, chat)
        await chat.allow(asked.approval_id)
        events = await rest(turn)
    assert "turn_parked" not in notices(events)
    assert events[-1].turn_completed.result == "done"


async def test_a_process_that_dies_parks_its_turn() -> None:
    """It has only waited; what it waited with is known."""
    slow = QUICK | {"limits": {"approval_park": 60}}
    with data_directory() as directory:
        async with service_in(directory, **slow) as service, client_of(service) as client:
            async with client.chat(config=config_of()) as chat:
                turn = await chat.send(SCRIPT)
                asked = await asks(turn)
                kill_cli(service, chat.session_id)
                await parks(turn)
                await chat.allow(asked.approval_id)
                assert (await rest(turn))[-1].HasField("turn_completed")
                assert await ran(chat) == "ran"


async def test_an_interrupt_ends_a_parked_turn(client: Client) -> None:
    """At once; the question is withdrawn, and the next message runs."""
    async with client.chat(config=config_of()) as chat:
        turn = await chat.send(SCRIPT)
        await parks(turn)
        await chat.interrupt()
        events = await rest(turn)
        assert outcomes(events) == [RESOLVED.OUTCOME_WITHDRAWN]
        assert events[-1].turn_completed.stop_reason == pb.STOP_REASON_INTERRUPTED
        assert await ran(chat) == ""


async def test_a_store_that_is_down_ends_no_parked_turn(client: Client, service: Service) -> None:
    """Turns that run are given up for want of it; this one has nothing to store until it goes on."""
    async with client.chat(config=config_of()) as chat:
        turn = await chat.send(SCRIPT)
        asked = await parks(turn)
        assert service._conversations is not None
        service._conversations._on_outage(store_down())
        await chat.allow(asked.approval_id)
        assert (await rest(turn))[-1].HasField("turn_completed")


async def test_a_message_waits_behind_a_parked_turn(client: Client) -> None:
    """It runs when that has ended, in the process that it ended in."""
    async with client.chat(config=config_of()) as chat:
        turn = await chat.send(SCRIPT)
        asked = await parks(turn)
        second = await chat.send(READ)
        await chat.allow(asked.approval_id)
        await rest(turn)
        events = await rest(second)
        assert results(events) == [("ran", False)]
        assert start_of(events).start == pb.START_KIND_HOT


async def test_a_parked_session_is_forked_and_removed(client: Client) -> None:
    """A fork begins before the turn; removing the session ends it."""
    async with client.chat(config=config_of()) as chat:
        await say(chat, "::say one")
        turn = await chat.send(SCRIPT)
        asked = await parks(turn)
        fork = await client.fork(chat.session_id)
        async with client.chat(session_id=fork.id) as forked:
            told = sent(await say(forked, "::echo messages"))
            assert "tool_use" not in [each["type"] for each in told]
        await client.delete(chat.session_id)
        decision = chat_pb.ApprovalDecision(approval_id=asked.approval_id)
        decision.allow.SetInParent()
        with pytest.raises(WarmlineError) as caught:
            await client.answer_approval(chat.session_id, decision)
        assert caught.value.reason == "SESSION_NOT_FOUND"


async def test_what_nobody_can_go_on_from_keeps_its_process(
    client: Client, service: Service
) -> None:
    """The caller's tools are connected to a process when it has started."""
    tool = {"name": "own", "description": "d"}
    async with client.chat(config=config_of(clientTools=[tool])) as chat:
        turn = await chat.send(f"{CALL}::say done")
        asked = await asks(turn)
        await asyncio.sleep(1)
        assert _hot(service, chat)
        kill_cli(service, chat.session_id)
        events = await rest(turn)
        assert outcomes(events) == [RESOLVED.OUTCOME_WITHDRAWN]
        assert failure(events).reason == "CLI_CRASHED"
        assert asked.approval_id


def _hot(service: Service, chat: Conversation) -> bool:
    live = conversation_of(service, chat.session_id)
    return live is not None and live.hot
