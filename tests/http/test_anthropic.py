"""The Anthropic Messages API, by the official SDK; the real CLI with the loopback model."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from typing import Any

import anthropic
import pytest
from anthropic import AsyncAnthropic
from conversing import PNG, Model
from shared import ServiceThread
from shimming import Shim, cli_lines, running_shim

pytestmark = [pytest.mark.real_cli, pytest.mark.shared_service]

WEATHER: Any = {
    "name": "weather",
    "description": "Tells the weather",
    "input_schema": {"type": "object", "properties": {"city": {"type": "string"}}},
}
CALLS = (
    '::tool mcp__client__weather {"city":"Basel"}\n::tool mcp__client__weather {"city":"Bern"}\n'
)


@pytest.fixture
async def sdk(shim: Shim) -> AsyncIterator[AsyncAnthropic]:
    """The official SDK, as it comes."""
    async with AsyncAnthropic(base_url=shim.url, api_key="any", max_retries=0) as made:
        yield made


def user(content: Any) -> Any:
    """What the user says."""
    return {"role": "user", "content": content}


def assistant(content: Any) -> Any:
    """What the model said."""
    return {"role": "assistant", "content": content}


async def asked(sdk: AsyncAnthropic, messages: list[Any], **more: Any) -> tuple[Any, str]:
    """An answer, and the session that it came from."""
    given: Any = {"model": "haiku", "max_tokens": 1000} | more
    raw = await sdk.messages.with_raw_response.create(messages=messages, **given)
    return await raw.parse(), raw.headers["x-session-id"]


async def test_a_conversation_goes_on_in_its_process(sdk: AsyncAnthropic, model: Model) -> None:
    """The second request finds the session by what was said; only the new message goes to it."""
    first, session = await asked(sdk, [user("hello")], system="Be brief.")
    assert first.content[0].text == "You said: hello (message 1 of this conversation)"
    assert (first.role, first.type, first.stop_reason) == ("assistant", "message", "end_turn")
    assert first.usage.output_tokens > 0
    talk = [user("hello"), assistant(first.content), user("again")]
    second, same = await asked(sdk, talk, system="Be brief.")
    assert second.content[0].text == "You said: again (message 2 of this conversation)"
    assert same == session
    system = json.dumps(model.asked[-1]["system"])
    assert "Be brief." in system
    # Plain: the caller has asked for no tools.
    assert not model.asked[-1].get("tools")


async def test_who_repeats_an_answer_as_text_finds_it_too(sdk: AsyncAnthropic) -> None:
    """Whether the content is a text or blocks makes no difference; another word makes one."""
    first, session = await asked(sdk, [user([{"type": "text", "text": "one"}])])
    text = first.content[0].text
    _, same = await asked(sdk, [user("one"), assistant(text), user("two")])
    assert same == session
    changed, other = await asked(sdk, [user("one"), assistant(f"{text}!"), user("two")])
    assert other != session
    assert "message 2" in changed.content[0].text


async def test_a_history_from_elsewhere_is_told(sdk: AsyncAnthropic, model: Model) -> None:
    """What no session knows goes to a process first: text and images."""
    seen = {
        "type": "image",
        "source": {"type": "base64", "media_type": "image/png", "data": PNG},
    }
    talk = [user([{"type": "text", "text": "See"}, seen]), assistant("A dot."), user("Sure?")]
    await asked(sdk, talk)
    said = model.said()
    assert [block["type"] for block in said[0]["content"]] == ["text", "image"]
    assert said[1]["content"][0]["text"] == "A dot."
    assert said[2]["content"][-1]["text"] == "Sure?"


@pytest.mark.parametrize("known", [True, False])
async def test_tools_run_on_the_callers_side(
    sdk: AsyncAnthropic, known: bool
) -> None:  # parametrized
    """The answer stops at the calls; the results go on in the process, or in another that is told all."""
    talk = [user(f"{CALLS}::say done {known}")]
    answer, session = await asked(sdk, talk, tools=[WEATHER])
    assert answer.stop_reason == "tool_use"
    calls = [block for block in answer.content if block.type == "tool_use"]
    assert [(each.name, each.input) for each in calls] == [
        ("weather", {"city": "Basel"}),
        ("weather", {"city": "Bern"}),
    ]
    results = [{"type": "tool_result", "tool_use_id": each.id, "content": "rain"} for each in calls]
    if not known:
        talk = [user(talk[0]["content"] + "\n")]
        talk[0]["content"] = f"other\n{talk[0]['content']}"
    talk += [assistant(answer.content), user(results)]
    done, same = await asked(sdk, talk, tools=[WEATHER])
    assert done.content[-1].text == f"done {known}"
    assert (same == session) is known
    talk += [assistant(done.content), user("bye")]
    last, after = await asked(sdk, talk, tools=[WEATHER])
    assert (after, last.stop_reason) == (same, "end_turn")


async def test_tokens_are_counted(sdk: AsyncAnthropic) -> None:
    """As the provider counts them: more for more, and for a tool; an alias is a model too."""

    async def count(text: str, **more: Any) -> int:
        asked: Any = {"model": "haiku", "messages": [user(text)]} | more
        return (await sdk.messages.count_tokens(**asked)).input_tokens

    short = await count("hi")
    assert 0 < short < await count("hi " * 100)
    assert short < await count("hi", tools=[WEATHER])
    with pytest.raises(anthropic.NotFoundError):
        await count("hi", model="nope")


async def test_thinking_is_a_block(sdk: AsyncAnthropic) -> None:
    """With its signature, as the API has it."""
    thinking: Any = {"type": "enabled", "budget_tokens": 2000}
    answer, _ = await asked(sdk, [user("::think 5\n::say so")], thinking=thinking)
    assert [block.type for block in answer.content] == ["thinking", "text"]
    assert answer.content[0].signature


async def test_a_stream_is_that_of_the_api(sdk: AsyncAnthropic) -> None:
    """Its events, in their order, with the whole message at the end."""
    given: Any = {"model": "haiku", "max_tokens": 100, "messages": [user("::text 3")]}
    async with sdk.messages.stream(**given) as stream:
        kinds = [event.type async for event in stream]
        message = await stream.get_final_message()
    raw = [kind for kind in kinds if kind != "text"]
    assert raw[:2] == ["message_start", "content_block_start"]
    assert raw[-3:] == ["content_block_stop", "message_delta", "message_stop"]
    assert set(raw[2:-3]) == {"content_block_delta"}
    assert message.usage.output_tokens == 3
    assert message.stop_reason == "end_turn"


GOLDEN = """\
: warmline

event: ping
data: {"type": "ping"}

event: message_start
data: {"type":"message_start","message":{"id":"ID","type":"message","role":"assistant","model":"MODEL",\
"content":[],"stop_reason":null,"stop_sequence":null,"usage":USAGE}}

event: content_block_start
data: {"type":"content_block_start","index":0,"content_block":{"type":"text","text":""}}

event: content_block_delta
data: {"type":"content_block_delta","index":0,"delta":{"type":"text_delta","text":"hi"}}

event: content_block_stop
data: {"type":"content_block_stop","index":0}

event: content_block_start
data: {"type":"content_block_start","index":1,"content_block":\
{"type":"tool_use","id":"ID","name":"weather","input":{}}}

event: content_block_delta
data: {"type":"content_block_delta","index":1,"delta":{"type":"input_json_delta","partial_json":""}}

event: content_block_delta
data: {"type":"content_block_delta","index":1,"delta":{"type":"input_json_delta","partial_json":"{}"}}

event: content_block_stop
data: {"type":"content_block_stop","index":1}

event: message_delta
data: {"type":"message_delta","delta":{"stop_reason":"tool_use","stop_sequence":null},"usage":USAGE}

event: message_stop
data: {"type":"message_stop"}

"""


async def test_the_stream_byte_by_byte(shim: Shim) -> None:
    """Golden: what the wire has, but for ids, the model's version and counts."""
    body = {"model": "haiku", "max_tokens": 100, "stream": True, "tools": [WEATHER]}
    body["messages"] = [user("::say hi\n::tool mcp__client__weather")]
    answer = await shim.http.post("/v1/messages", json=body)
    assert answer.headers["content-type"].startswith("text/event-stream")
    assert answer.headers["x-accel-buffering"] == "no"
    assert answer.headers["request-id"]
    assert _plain(answer.text) == GOLDEN


def _plain(text: str) -> str:
    lines: list[str] = []
    for line in text.split("\n"):
        if (line.startswith("data: ") and "message" in line) or "tool_use" in line:
            told = json.loads(line[6:])
            holder = told.get("message") or told.get("content_block") or {}
            if "id" in holder:
                holder["id"] = "ID"
            if "model" in holder:
                holder["model"] = "MODEL"
            for each in (told, holder):
                if "usage" in each:
                    assert each["usage"]["input_tokens"] > 0
                    each["usage"] = "USAGE"
            line = "data: " + json.dumps(told, separators=(",", ":")).replace('"USAGE"', "USAGE")
        lines.append(line.rstrip())
    return "\n".join(lines)


@pytest.mark.parametrize(
    ("text", "error", "kind"),
    [
        ("::error 529", anthropic.APIStatusError, "overloaded_error"),
        ("::error 429", anthropic.RateLimitError, "rate_limit_error"),
    ],
)
async def test_a_failed_turn_is_an_error_of_the_api(
    sdk: AsyncAnthropic, text: str, error: type[anthropic.APIStatusError], kind: str
) -> None:
    """With its status, its type and the request's id."""
    with pytest.raises(error) as caught:
        await asked(sdk, [user(text)])
    body: Any = caught.value.body
    assert body["error"]["type"] == kind
    assert body["request_id"] == caught.value.response.headers["request-id"]


async def test_a_stream_that_fails_says_so() -> None:
    """By an event of the API's, after what was written."""
    body = {"model": "haiku", "max_tokens": 9999, "stream": True}
    body["messages"] = [user("::pace 20ms\n::text 9000")]
    async with running_shim(limits={"turn_timeout": 2}) as shim:
        answer = await shim.http.post("/v1/messages", json=body)
    told = [json.loads(line[6:]) for line in answer.text.split("\n") if line.startswith("data: ")]
    assert answer.status_code == 200
    assert "content_block_delta" in {each["type"] for each in told}
    assert (told[-1]["type"], told[-1]["error"]["type"]) == ("error", "timeout_error")


BAD: list[tuple[dict[str, Any], int, str]] = [
    ({}, 400, "messages"),
    ({"messages": []}, 400, "messages"),
    ({"messages": [assistant("x")]}, 400, "messages"),
    ({"messages": [user("x"), assistant("y")]}, 400, "messages"),
    ({"messages": [user([{"type": "image", "source": {"type": "url"}}])]}, 400, "source"),
    ({"messages": [user([{"type": "video"}])]}, 400, "messages"),
    ({"messages": [user("x")], "tools": [{"name": "a b"}]}, 400, "tools"),
    ({"messages": [user("x")], "model": "nope"}, 404, "model"),
    ({"messages": [user("x")], "session_id": "0" * 36}, 400, "session"),
    ({"messages": [user([{"type": "tool_result", "tool_use_id": "x"}])]}, 400, "call"),
]


async def test_bad_requests_are_named(shim: Shim) -> None:
    """In Anthropic's shape, with the field in the message."""
    for body, status, word in BAD:
        answer = await shim.http.post("/v1/messages", json=body)
        told = answer.json()
        assert (answer.status_code, told["type"]) == (status, "error"), (body, told)
        assert word in told["error"]["message"], (body, told)


async def test_what_has_no_effect_is_told(shim: Shim) -> None:
    """By a header; unknown fields of the API do not hurt."""
    body = {"model": "haiku", "max_tokens": 9, "messages": [user("x")], "temperature": 0.5}
    answer = await shim.http.post("/v1/messages", json=body | {"next_year": {"a": 1}})
    assert answer.headers["x-warmline-ignored"] == "temperature, max_tokens"


async def test_a_request_that_is_sent_again_runs_once(shim: Shim) -> None:
    """By its `idempotency-key`: while the first runs, and when it has ended."""
    body = {"model": "haiku", "max_tokens": 9, "messages": [user("::say once")]}
    first, second = [
        await shim.http.post("/v1/messages", json=body, headers={"idempotency-key": "k-1"})
        for _ in range(2)
    ]
    assert first.json()["content"] == second.json()["content"]
    assert first.headers["x-session-id"] == second.headers["x-session-id"]


async def test_keepalive_stays_on_its_process(shim: Shim) -> None:
    """The CLI's own lines; the caller's next message finds the process, and the receipt says hot."""
    body = {"model": "sonnet", "system": "K", "messages": [user("one")]}
    first = cli_lines(await shim.http.post("/v1/messages/keepalive", json=body))
    second = cli_lines(
        await shim.http.post("/v1/messages/keepalive", json=body | {"messages": [user("two")]})
    )
    assert [each["type"] for each in first if each["type"] != "system"] == ["assistant", "result"]
    receipts = [each for each in (*first, *second) if each.get("subtype") == "warmline"]
    assert [each["start"] for each in receipts] == [receipts[0]["start"], "hot"]
    assert "message 2" in second[-1]["result"]
    known = body | {"session_id": receipts[0]["session_id"], "messages": [user("three")]}
    third = cli_lines(await shim.http.post("/v1/messages/keepalive", json=known))
    assert "message 3" in third[-1]["result"]


async def test_keepalive_tells_a_failure_and_ends(shim: Shim) -> None:
    """Never a silent end."""
    body = {"model": "haiku", "system": "F", "messages": [user("::error 500")]}
    told = cli_lines(await shim.http.post("/v1/messages/keepalive", json=body))
    assert told[-1]["type"] == "error"


async def test_a_caller_who_goes_away_cancels_nothing(shim: Shim, thread: ServiceThread) -> None:
    """The turn goes on and ends; the session can be asked for."""
    body = {"model": "haiku", "max_tokens": 9, "stream": True}
    body["messages"] = [user("::pace 20ms\n::text 30")]
    async with shim.http.stream("POST", "/v1/messages", json=body) as answer:
        session = answer.headers["x-session-id"]
        async for line in answer.aiter_lines():
            if "text_delta" in line:
                break
    more = {"model": "haiku", "messages": [user("::say after")], "session_id": session}
    after = await shim.http.post("/v1/messages", json=more | {"max_tokens": 9})
    assert after.json()["content"][0]["text"] == "after"
