"""Conversations that their callers keep: begun with a history, found again by a name; with the real CLI."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from conversing import PNG, Model
from google.protobuf.json_format import ParseDict
from parking import RESUMED, client_of, say, start_of
from running import data_directory, faking, running_client, service_in, text_of
from warmline.v1 import chat_service_pb2 as chat_pb
from warmline.v1 import events_pb2 as pb
from warmline.v1 import session_config_pb2 as config_pb
from warmline_client import Client, Conversation, WarmlineError

HOT = pb.START_KIND_HOT
TALK = [
    {"role": "ROLE_USER", "content": [{"text": "My name is Ada."}]},
    {"role": "ROLE_ASSISTANT", "content": [{"text": "Hello Ada."}]},
]
CALLED = {
    "role": "ROLE_ASSISTANT",
    "content": [{"toolCall": {"id": "toolu_1", "name": "weather", "input": {"city": "Basel"}}}],
}
ANSWERED = {
    "role": "ROLE_USER",
    "content": [{"toolOutput": {"toolCallId": "toolu_1", "text": "rain"}}],
}
TOOL = {"name": "weather", "description": "Tells it", "inputSchema": {"type": "object"}}


def history(*messages: dict[str, Any]) -> Sequence[chat_pb.HistoryMessage]:
    """Messages from elsewhere."""
    return [ParseDict(message, chat_pb.HistoryMessage()) for message in messages]


def config(**given: Any) -> config_pb.SessionConfig:
    """How a session is set up."""
    return ParseDict(given, config_pb.SessionConfig())


@pytest.fixture
def model(monkeypatch: pytest.MonkeyPatch) -> Model:
    """The model of the test's service."""
    made = Model()
    monkeypatch.setattr("warmline_service.server.make_provider", lambda *_: made.provider)
    return made


@pytest.fixture
async def real(model: Model) -> AsyncIterator[Client]:
    """A service with the real CLI."""
    del model
    async with running_client() as client:
        yield client


@pytest.fixture
async def client(tmp_path: Path) -> AsyncIterator[Client]:
    """A service with the fake CLI."""
    async with running_client(cli=faking(tmp_path)) as client:
        yield client


async def noted(chat: Conversation) -> pb.Event:
    """That the session has a name now."""
    async with asyncio.timeout(60):
        while True:
            for event in chat.notices:
                if event.HasField("checkpointed"):
                    return event
            await asyncio.sleep(0.01)


@pytest.mark.real_cli
async def test_a_session_begins_with_what_was_said_elsewhere(real: Client, model: Model) -> None:
    """The model is sent it as if it had been said here: text, images, calls of tools and their results."""
    seen = {"image": {"mediaType": "image/png", "data": PNG}}
    more = {"role": "ROLE_USER", "content": [{"text": "And this?"}, seen]}
    other = {
        "toolCall": {
            "id": "toolu_0",
            "name": "Read",
            "input": {"file_path": "/etc/passwd", "limit": 3},
        }
    }
    calls = {"role": "ROLE_ASSISTANT", "content": [{"text": "I look."}, other]}
    output = {"toolOutput": {"toolCallId": "toolu_0", "text": "root", "isError": True}}
    gave = {"role": "ROLE_USER", "content": [output]}
    last = {"role": "ROLE_ASSISTANT", "content": [{"text": "No."}]}
    told = history(*TALK, more, calls, gave, last)
    async with real.chat(history=told) as chat:
        events = await say(chat, "Who am I?")
    assert start_of(events).start == RESUMED
    said = model.said()
    assert [each["role"] for each in said] == ["user", "assistant"] * 3 + ["user"]
    assert said[0]["content"][0]["text"] == "My name is Ada."
    assert [block["type"] for block in said[2]["content"]] == ["text", "image"]
    (call,) = [block for block in said[3]["content"] if block["type"] == "tool_use"]
    # Not the CLI's own tool: it would look after that file.
    assert (call["name"], call["input"]) == (
        "earlier_Read",
        {"file_path": "/etc/passwd", "limit": 3},
    )
    assert isinstance(call["input"]["limit"], int)  # A Struct has doubles.
    assert said[4]["content"][0]["is_error"]
    assert said[6]["content"][-1]["text"] == "Who am I?"


@pytest.mark.real_cli
async def test_a_call_that_was_made_elsewhere_is_answered(real: Client, model: Model) -> None:
    """The history ends with a call of the caller's tool, and the first message is what it gave."""
    told = history(TALK[0], CALLED)
    output = chat_pb.InputBlock(
        tool_output=chat_pb.ToolOutput(tool_call_id="toolu_1", text="it rains")
    )
    async with real.chat(history=told, config=config(clientTools=[TOOL])) as chat:
        events = await say(chat, "", [output])
        again = await say(chat, "More")
    assert text_of(events) == "The tool answered: it rains"
    assert start_of(again).start == HOT
    said = model.said(0)
    assert said[1]["content"][0]["name"] == "mcp__client__weather"
    assert said[2]["content"][0]["tool_use_id"] == "toolu_1"
    assert len(said) == 3


async def test_an_answer_to_no_call_is_refused(client: Client) -> None:
    """By the turn's own failure; the session goes on."""
    output = chat_pb.InputBlock(tool_output=chat_pb.ToolOutput(tool_call_id="x", text="y"))
    async with client.chat(history=history(*TALK)) as chat:
        for _ in range(2):
            events = await say(chat, "", [output])
            error = WarmlineError(events[-1].turn_failed.status)
            assert error.fields == {"message.content": "answers a call that the model has not made"}
            assert text_of(await say(chat, "hi")) == "echo: hi"


BAD: list[tuple[list[dict[str, Any]], str]] = [
    ([TALK[1]], "open.history[0].role"),
    ([TALK[0], TALK[0]], "open.history[1].role"),
    ([TALK[0]], "open.history"),
    ([{"role": 7}, TALK[1]], "open.history[0].role"),
    ([{"role": "ROLE_USER"}, TALK[1]], "open.history[0].content"),
    ([{"role": "ROLE_USER", "content": [{"text": " "}]}], "open.history[0].content[0].text"),
    ([{"role": "ROLE_USER", "content": [{}]}], "open.history[0].content[0]"),
    ([{"role": "ROLE_USER", "content": CALLED["content"]}], "open.history[0].content[0]"),
    ([TALK[0], ANSWERED | {"role": "ROLE_ASSISTANT"}], "open.history[1].content[0]"),
]


async def test_a_bad_history_is_refused(client: Client) -> None:
    """Before anything begins, by the name of the field."""
    for messages, field in BAD:
        with pytest.raises(WarmlineError, match="FIELD_INVALID") as caught:
            async with client.chat(history=history(*messages)):
                pass
        assert list(caught.value.fields) == [field]


async def test_a_session_is_found_by_its_name_once(client: Client) -> None:
    """On its own process, by whoever asks first; the second begins a session with what it brings."""
    async with client.chat() as chat:
        await say(chat, "one")
        await chat.checkpoint("at-one")
        assert (await noted(chat)).checkpointed.continuations == ["at-one"]
        session_id = chat.session_id
    async with (
        client.chat(continuation="at-one", history=history(*TALK)) as found,
        client.chat(continuation="at-one", history=history(*TALK)) as other,
    ):
        assert (found.session_id, found.opened.continued) == (session_id, True)
        assert start_of(await say(found, "two")).start == HOT
        assert not other.opened.continued
        assert other.session_id != session_id
        assert '"My name is Ada."' in text_of(await say(other, "!bound"))


async def test_a_name_moves_on_with_its_session(client: Client) -> None:
    """Only the last one finds it; of two sessions of a name the one that had it last comes first."""
    ids = []
    for _ in range(2):
        async with client.chat() as chat:
            await say(chat, "one")
            await chat.checkpoint("first")
            await chat.checkpoint("second", "other")
            await noted(chat)
            ids.append(chat.session_id)
    async with client.chat(continuation="first") as chat:
        assert not chat.opened.continued
    for expected in reversed(ids):
        async with client.chat(continuation="second") as chat:
            assert (chat.session_id, chat.opened.continued) == (expected, True)


async def test_a_turn_uses_the_names_up(client: Client) -> None:
    """They stand for what had been said when they were given."""
    async with client.chat() as chat:
        await say(chat, "one")
        await chat.checkpoint("at-one")
        await noted(chat)
        await say(chat, "two")
    async with client.chat(continuation="at-one") as other:
        assert not other.opened.continued


async def test_a_name_is_used_up_for_good(tmp_path: Path) -> None:
    """Also where nothing was said by whoever found the session, and the service stops then."""
    with data_directory() as data:
        for found in (True, False):
            async with service_in(data, cli=faking(tmp_path)) as service:
                async with client_of(service) as client:
                    if found:
                        async with client.chat() as chat:
                            await say(chat, "one")
                            await chat.checkpoint("at-one")
                            await noted(chat)
                    async with client.chat(continuation="at-one") as chat:
                        assert chat.opened.continued == found


async def test_a_session_that_is_in_use_is_passed_over(client: Client) -> None:
    """Whoever asks by a name has the whole conversation and begins anew."""
    async with client.chat() as chat:
        await chat.checkpoint("mine")
        await noted(chat)
        async with client.chat(continuation="mine", history=history(*TALK)) as other:
            assert not other.opened.continued
            assert '"My name is Ada."' in text_of(await say(other, "!bound"))


async def test_a_name_outlives_the_service(tmp_path: Path) -> None:
    """It is found after a restart, and told what was said."""
    with data_directory() as data:
        async with service_in(data, cli=faking(tmp_path)) as service, client_of(service) as client:
            async with client.chat() as chat:
                await say(chat, "one")
                await chat.checkpoint("kept")
                await noted(chat)
        async with service_in(data, cli=faking(tmp_path)) as service, client_of(service) as client:
            async with client.chat(continuation="kept") as chat:
                assert chat.opened.continued
                assert start_of(await say(chat, "two")).start == RESUMED
