"""An interrupt says what happened, and nothing of the turn leaks into the next."""

import asyncio

import pytest
from running import events_of, kinds, running_client, text_of
from warmline.v1 import events_pb2 as pb

pytestmark = pytest.mark.real_cli
Outcome = pb.InterruptResult


async def test_a_running_turn_is_stopped() -> None:
    """STOPPED; the turn completes as interrupted; the next one holds only its own."""
    async with running_client() as client, client.chat() as chat:
        turn = await chat.send("::pace 20ms\n::text 2000")
        seen = []
        async for event in turn:
            seen.append(event)
            if event.HasField("text_delta") and kinds(seen).count("text_delta") == 5:
                result = await chat.interrupt()
        assert result.outcome == Outcome.OUTCOME_STOPPED
        assert seen[-1].turn_completed.stop_reason == pb.STOP_REASON_INTERRUPTED
        after = await events_of(chat, "::say clean")
    assert text_of(after) == "clean"
    assert after[-1].turn_completed.latency.start == pb.START_KIND_HOT
    assert after[-1].turn_completed.usage.output_tokens < 100


async def test_an_interrupt_right_after_the_message_is_not_lost() -> None:
    """However early it comes, the turn ends as interrupted."""
    async with running_client() as client, client.chat() as chat:
        for _ in range(5):
            turn = await chat.send("::pace 20ms\n::text 2000")
            result = await chat.interrupt()
            assert (await turn.completed()).stop_reason == pb.STOP_REASON_INTERRUPTED
            assert result.outcome in (Outcome.OUTCOME_STOPPED, Outcome.OUTCOME_LATCHED)
        assert text_of(await events_of(chat, "::say clean")) == "clean"


async def test_with_no_turn_there_is_nothing_to_stop() -> None:
    """NOTHING_RUNNING, before the first turn and between turns."""
    async with running_client() as client, client.chat() as chat:
        before = await chat.interrupt()
        await events_of(chat, "::say hi")
        between = await chat.interrupt()
    assert before.outcome == between.outcome == Outcome.OUTCOME_NOTHING_RUNNING


async def test_a_turn_that_waits_for_a_process_is_latched() -> None:
    """It ends without having run, and its place in the pool is free again."""
    async with running_client(pool={"max_processes": 1, "min_spares": 0}) as client:
        async with client.chat() as first, client.chat() as second:
            running = await first.send("::pace 20ms\n::text 100")
            await anext(aiter(running))
            waiting = await second.send("::say never")
            result = await second.interrupt()
            done = await waiting.completed()
            assert result.outcome == Outcome.OUTCOME_LATCHED
            assert (done.stop_reason, done.model_requests) == (pb.STOP_REASON_INTERRUPTED, 0)
            await running.completed()


async def test_a_tool_is_stopped_too() -> None:
    """An interrupt ends a running tool and what it started."""
    async with running_client() as client, client.chat() as chat:
        turn = await chat.send('::tool Bash {"command": "sleep 300"}\n::say never')
        async for event in turn:
            if event.HasField("tool_call"):
                interrupting = asyncio.create_task(chat.interrupt())
        result = await interrupting
    assert result.outcome == Outcome.OUTCOME_STOPPED


async def test_messages_behind_an_interrupted_turn_still_run() -> None:
    """An interrupt stops the running turn only; what waits goes on in order."""
    async with running_client() as client, client.chat() as chat:
        first = await chat.send("::pace 20ms\n::text 2000")
        second = await chat.send("::say second")
        third = await chat.send("::say third")
        await anext(aiter(first))
        await chat.interrupt()
        assert (await first.completed()).stop_reason == pb.STOP_REASON_INTERRUPTED
        assert (await second.completed()).result == "second"
        assert (await third.completed()).result == "third"
