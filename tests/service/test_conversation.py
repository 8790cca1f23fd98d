"""A conversation over gRPC with the real CLI and the loopback model."""

import asyncio
import json
from typing import Any

import pytest
from running import events_of, kinds, running_client, text_of
from warmline.v1 import chat_service_pb2 as chat_pb
from warmline.v1 import events_pb2 as pb
from warmline_client import WarmlineError

pytestmark = pytest.mark.real_cli


async def test_a_conversation_streams_keeps_context_and_stays_hot() -> None:
    """Turns of one stream are one conversation: the first on a spare, the others on its process."""
    async with running_client() as client, client.chat() as chat:
        first = await events_of(chat, "::pace 5ms\n::text 20")
        second = await events_of(chat, "::echo messages")
    assert kinds(first)[:2] == ["turn_queued", "turn_started"]
    assert kinds(first)[-2:] == ["message", "turn_completed"]
    assert kinds(first).count("text_delta") > 3
    done = first[-1].turn_completed
    assert done.result == text_of(first)
    assert done.stop_reason == pb.STOP_REASON_END_TURN
    assert done.latency.start == pb.START_KIND_WARM
    assert second[-1].turn_completed.latency.start == pb.START_KIND_HOT
    assert done.result in text_of(second)
    seqs = [event.seq for event in first + second]
    assert seqs == sorted(set(seqs))


async def test_usage_and_cost_are_of_the_turn_alone() -> None:
    """The second turn reports its own tokens, not the sum."""
    async with running_client() as client, client.chat() as chat:
        long = (await events_of(chat, "::text 500"))[-1].turn_completed
        short = (await events_of(chat, "::text 5"))[-1].turn_completed
    assert long.usage.output_tokens >= 500
    assert 0 < short.usage.output_tokens < 50
    assert 0 < short.usage.cost_usd < long.usage.cost_usd
    assert list(short.usage.by_model) == list(long.usage.by_model)
    assert (long.model_requests, short.model_requests) == (1, 1)


async def test_tools_are_told_with_their_results() -> None:
    """A tool call and its result are events, between the two messages of the turn."""
    script = '::tool Bash {"command": "echo from-the-tool"}\n::say done'
    async with running_client() as client, client.chat() as chat:
        events = await events_of(chat, script)
    call = next(event.tool_call for event in events if event.HasField("tool_call"))
    result = next(event.tool_result for event in events if event.HasField("tool_result"))
    assert (call.name, call.input["command"]) == ("Bash", "echo from-the-tool")
    assert (result.tool_call_id, result.is_error) == (call.id, False)
    assert "from-the-tool" in result.text
    assert kinds(events).count("message") == 2
    assert events[-1].turn_completed.model_requests == 2
    assert "tool_input_delta" in kinds(events)


async def test_a_tool_that_is_not_allowed_is_a_denial() -> None:
    """Without anybody to ask, a tool that needs a yes does not run, and the turn says so."""
    async with running_client() as client, client.chat() as chat:
        script = '::tool Write {"file_path": "/etc/warmline", "content": "x"}\n::say done'
        events = await events_of(chat, script)
    denial = events[-1].turn_completed.permission_denials[0]
    assert denial.tool_name == "Write"
    assert next(e.tool_result for e in events if e.HasField("tool_result")).is_error


async def test_thinking_is_told_apart_from_text() -> None:
    """Thinking comes as thinking deltas and as a block of the message."""
    async with running_client() as client, client.chat() as chat:
        events = await events_of(chat, "::think 10\n::say so")
    assert "thinking_delta" in kinds(events)
    message = next(event.message for event in events if event.HasField("message"))
    assert [block.WhichOneof("kind") for block in message.content] == ["thinking", "text"]
    assert text_of(events) == "so"


@pytest.mark.parametrize("kind", ["system", "append_system"])
async def test_a_system_prompt_reaches_the_model_on_a_spare(kind: str) -> None:
    """A prompt is bound late: the model gets it, the start is warm."""
    prompt: dict[str, Any] = {kind: "Be a lighthouse."}
    async with running_client() as client, client.chat(**prompt) as chat:
        events = await events_of(chat, "::echo system")
    sent = text_of(events)
    assert "Be a lighthouse." in sent
    assert events[-1].turn_completed.latency.start == pb.START_KIND_WARM
    assert ("interactive agent" in sent or len(sent) > 2000) == (kind == "append_system")


async def test_nothing_of_the_warm_up_is_in_the_first_turn() -> None:
    """A primed spare's conversation begins with the session's own first message."""
    async with running_client() as client, client.chat() as chat:
        events = await events_of(chat, "::echo messages")
    messages = json.loads(text_of(events))
    said = [message for message in messages if message["role"] == "user"]
    assert len(said) == 1
    assert [message["role"] for message in messages].count("assistant") == 0
    assert "::echo messages" in json.dumps(said)


async def test_a_model_is_bound_by_alias_and_by_id() -> None:
    """The model that is asked for is the one that the provider is asked for."""
    async with running_client() as client:
        for name in ("haiku", "claude-haiku-5-5"):
            async with client.chat(model=name) as chat:
                assert chat.opened.model == "claude-haiku-5-5"
                events = await events_of(chat, "::echo model")
            assert "claude-haiku-5-5" in text_of(events)


@pytest.mark.parametrize("text", ["/clear", "/help me", "look at @/etc/hostname please"])
async def test_text_is_delivered_verbatim(text: str) -> None:
    """A leading slash is no command and an at-sign reads no file."""
    async with running_client() as client, client.chat() as chat:
        events = await events_of(chat, text)
        echo = text_of(await events_of(chat, "::echo messages"))
    assert text in text_of(events)
    assert text in echo
    with open("/etc/hostname") as file:  # noqa: ASYNC230, PTH123  # a tiny local file
        assert f'content": "{file.read().strip()}' not in echo


async def test_large_messages_pass_both_ways() -> None:
    """Three megabytes in, an answer of 20,000 tokens out; what the model cannot take is named."""
    async with running_client() as client, client.chat() as chat:
        refused = (await events_of(chat, "x" * 20_000_000))[-1].turn_failed
        assert WarmlineError(refused.status).reason == "MESSAGE_TOO_LARGE"
        assert not refused.context_lost
        assert text_of(await events_of(chat, "::say got it\n" + "x" * 3_000_000)) == "got it"
        events = await events_of(chat, "::text 20000")
        assert len(text_of(events)) > 80_000
        assert events[-1].turn_completed.result == text_of(events)


async def test_raw_detail_gives_the_lines_of_the_cli() -> None:
    """With RAW each line of the turn comes as it was; otherwise none that has an event."""
    async with running_client() as client:
        async with client.chat(detail=chat_pb.DETAIL_RAW) as chat:
            raws = [e.raw for e in await events_of(chat, "::say hi") if e.HasField("raw")]
        async with client.chat() as chat:
            assert "raw" not in kinds(await events_of(chat, "::say hi"))
    assert {"system", "stream_event", "assistant", "result"} <= {raw.type for raw in raws}
    assert all(json.loads(raw.json)["type"] == raw.type for raw in raws)


async def test_text_detail_gives_only_text_and_ends() -> None:
    """With TEXT there is no thinking and no message."""
    async with running_client() as client, client.chat(detail=chat_pb.DETAIL_TEXT) as chat:
        events = await events_of(chat, "::think 5\n::say hi")
    assert set(kinds(events)) == {"turn_queued", "turn_started", "text_delta", "turn_completed"}


async def test_ask_is_one_turn_of_a_session() -> None:
    """Ask opens, says and ends; the session can be gone on with."""
    async with running_client() as client:
        events = [event async for event in client.ask("::say one")]
        session = events[0].session_opened.session_id
        again = [event async for event in client.ask("::echo messages", session_id=session)]
    assert kinds(events)[0] == "session_opened"
    assert kinds(events)[-1] == "turn_completed"
    assert again[-1].turn_completed.latency.start == pb.START_KIND_HOT
    assert "one" in text_of(again)


async def test_many_sessions_share_few_processes() -> None:
    """More sessions than processes: each gets its turn, none another's answer."""
    async with running_client(pool={"max_processes": 2}) as client:

        async def one(number: int) -> str:
            events = [event async for event in client.ask(f"::say answer-{number}")]
            return text_of(events)

        answers = await asyncio.gather(*(one(number) for number in range(8)))
    assert answers == [f"answer-{number}" for number in range(8)]
