"""A turn that waits for an approval outlives its service; with the real CLI."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from deferring import CALL, SCRIPT, asks, config_of, outcomes, parks, ran, results, sent
from parking import say
from running import data_directory, until
from serving import ends, journal, served
from warmline.v1 import chat_service_pb2 as chat_pb
from warmline.v1 import events_pb2 as pb
from warmline.v1 import session_service_pb2 as session_pb
from warmline_client import Client, WarmlineError, connect
from warmline_service.config import CliSettings
from warmline_service.worker import find_cli

pytestmark = pytest.mark.real_cli

ON: dict[str, object] = {
    "pool__min_spares": 0,
    "pool__max_spares": 0,
    "limits__approval_park": 0.2,
}
LOST = "CLI_CRASHED true"
NOT_BEGUN = "CLI_CRASHED false"


@pytest.fixture
async def data() -> AsyncIterator[Path]:
    """A data directory."""
    with data_directory() as directory:
        yield directory


@pytest.fixture
def cli() -> Path:
    """The real CLI."""
    return find_cli(CliSettings())


async def allow(client: Client, session_id: str, approval_id: str) -> None:
    """Say yes from outside of a stream."""
    decision = chat_pb.ApprovalDecision(approval_id=approval_id)
    decision.allow.SetInParent()
    await client.answer_approval(session_id, decision)


async def ended(client: Client, session_id: str) -> list[pb.Event]:
    """The session's events, to the first end of a turn after which nothing waits."""
    events = []
    async with asyncio.timeout(60):
        async for event in client.watch(session_id, kinds=()):
            events.append(event)
            if event.HasField("turn_completed"):
                return events
    raise AssertionError("the stream ended")


async def test_a_service_that_is_killed(data: Path, cli: Path, store_url: str) -> None:
    """The approval is open in the next service; any client answers, and the turn has its one end."""
    on = ON | ({"store__url": store_url} if store_url else {})
    async with served(data, cli, 0, on) as first:
        async with connect(first.address) as client, client.chat(config=config_of()) as chat:
            session_id = chat.session_id
            turn = await chat.send(SCRIPT)
            asked = await parks(turn)
            waiting = await chat.send("::say two")
            await until(lambda: bool(waiting.id))
        await first.killed()
    async with served(data, cli, 0, on) as second, connect(second.address) as client:
        session = await client.session(session_id)
        assert session.state == session_pb.SESSION_STATE_DEFERRED
        assert [each.approval_id for each in session.open_approvals] == [asked.approval_id]
        async with client.chat(session_id=session_id) as chat:
            assert chat.opened.running_turn_id == turn.id
            assert [each.approval_id for each in chat.opened.open_approvals] == [asked.approval_id]
        await allow(client, session_id, asked.approval_id)
        events = await ended(client, session_id)
        assert outcomes(events) == [pb.ApprovalResolved.OUTCOME_ALLOWED]
        assert [each["type"] for each in sent(events)] == ["tool_use", "tool_result"]
        assert ends(await journal(client, session_id)) == {SCRIPT: "done", "::say two": NOT_BEGUN}
        async with client.chat(session_id=session_id) as chat:
            assert await ran(chat) == "ran"
        with pytest.raises(WarmlineError, match="APPROVAL_NOT_FOUND"):
            await allow(client, session_id, asked.approval_id)


async def test_a_service_that_drains(data: Path, cli: Path) -> None:
    """It does not wait for who might answer: the turn is parked at once, and left to the next service."""
    slow = ON | {"limits__approval_park": 60, "drain_grace": 60}
    async with served(data, cli, 0, slow) as first:
        async with connect(first.address) as client, client.chat(config=config_of()) as chat:
            session_id = chat.session_id
            asked = await asks(await chat.send(SCRIPT))
            await first.drained()
    async with served(data, cli, 0, slow) as second, connect(second.address) as client:
        await allow(client, session_id, asked.approval_id)
        events = await ended(client, session_id)
        assert [e.notice.code for e in events if e.HasField("notice")] == ["turn_parked"]
        async with client.chat(session_id=session_id) as chat:
            assert await ran(chat) == "ran"


async def test_the_time_runs_out_after_a_restart(data: Path, cli: Path) -> None:
    """What was to be answered by then is denied, by the service that has the turn."""
    config = config_of(approvals={"mode": "MODE_DEFER", "timeout": "8s"})
    async with served(data, cli, 0, ON) as first:
        async with connect(first.address) as client, client.chat(config=config) as chat:
            await parks(await chat.send(f"{CALL}::say done"))
            session_id = chat.session_id
        await first.killed()
    async with served(data, cli, 0, ON) as second, connect(second.address) as client:
        events = await ended(client, session_id)
        assert outcomes(events) == [pb.ApprovalResolved.OUTCOME_EXPIRED]
        assert [failed for _, failed in results(events)] == [True]


async def test_what_was_answered_is_not_asked_again(data: Path, cli: Path) -> None:
    """Killed after that, the turn has failed: its tool may have run, and runs no second time."""
    async with served(data, cli, 0, ON) as first:
        async with connect(first.address) as client, client.chat(config=config_of()) as chat:
            session_id = chat.session_id
            turn = await chat.send(f"{CALL}::hang")
            await chat.allow((await parks(turn)).approval_id)
            async with asyncio.timeout(90):
                async for event in turn:
                    if event.HasField("tool_result"):
                        break
            await first.killed()
    async with served(data, cli, 0, ON) as second, connect(second.address) as client:
        assert list(ends(await journal(client, session_id)).values()) == [LOST]
        async with client.chat(session_id=session_id) as chat:
            assert not chat.opened.open_approvals
            assert (await say(chat, "::say on"))[-1].turn_completed.result == "on"
            assert await ran(chat) == "ran"
