"""The official `openai` SDK against the shim, a whole service, the real CLI and the loopback model."""

import json
import re
from collections.abc import AsyncIterator, Iterator, Sequence
from typing import Any

import openai
import pytest
from anthropic import AsyncAnthropic
from conversing import PNG, Model
from openai import AsyncOpenAI
from openai.types.chat import ChatCompletion, ChatCompletionChunk
from parking import client_of
from pydantic import BaseModel
from shared import ServiceThread, shared_service
from shimming import Shim, shim_before
from warmline.v1 import events_pb2 as pb
from warmline.v1 import session_config_pb2 as config_pb
from warmline_http._merging import Written
from warmline_http.openai._body import CompletionBody
from warmline_http.openai._reply import finish_of, usage_of
from warmline_http.openai._request import ignored_in, talk_of

pytestmark = [pytest.mark.real_cli, pytest.mark.shared_service]

MODEL = "haiku"
WEATHER: Any = {
    "type": "function",
    "function": {
        "name": "weather",
        "description": "Tells the weather",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}},
    },
}
ASKED = '::say I look.\n::tool mcp__client__weather {"city": "Basel"}\n::tool mcp__client__weather'


class City(BaseModel):
    """What the model is to tell."""

    name: str
    people: int


@pytest.fixture(scope="module")
def shared_model() -> Model:
    """The model of the module's service."""
    return Model()


@pytest.fixture
def model(shared_model: Model) -> Model:
    """The same; it has been asked nothing yet."""
    shared_model.provider.requests.clear()
    return shared_model


@pytest.fixture(scope="module")
def thread(shared_model: Model) -> Iterator[ServiceThread]:
    """A service that keeps spares for plain completions."""
    pool = {"bare_spares": True, "max_processes": 8, "idle_ttl": 20.0}
    with shared_service(shared_model, pool=pool) as made:
        yield made


@pytest.fixture
async def shim(thread: ServiceThread, model: Model) -> AsyncIterator[Shim]:
    """A shim in front of it."""
    del model
    async with shim_before(thread.service, heartbeat=0.2) as made:
        yield made


@pytest.fixture
async def client(shim: Shim) -> AsyncIterator[AsyncOpenAI]:
    """The SDK, as anybody sets it up."""
    async with AsyncOpenAI(base_url=f"{shim.url}/v1", api_key="none", max_retries=0) as made:
        yield made


class Caller:
    """Somebody who keeps a conversation."""

    def __init__(self, client: AsyncOpenAI, **given: Any) -> None:
        self._client = client
        self._given = {"model": MODEL, **given}
        self.messages: list[Any] = []
        self.sessions: list[str] = []
        self.ignored: str | None = None

    async def say(self, *messages: dict[str, Any], **given: Any) -> ChatCompletion:
        """Send what is new after all that was said; keeps the answer."""
        self.messages += messages
        create = self._client.chat.completions.with_raw_response.create
        answer = await create(messages=self.messages, **self._given, **given)
        self.sessions.append(answer.headers["x-session-id"])
        self.ignored = answer.headers.get("x-warmline-ignored")
        completion: ChatCompletion = answer.parse()
        self.messages.append(completion.choices[0].message.model_dump(exclude_none=True))
        return completion


def user(text: str) -> dict[str, Any]:
    """What the user says."""
    return {"role": "user", "content": text}


def result(call_id: str, text: str) -> dict[str, Any]:
    """What a tool gave."""
    return {"role": "tool", "tool_call_id": call_id, "content": text}


async def starts_of(thread: ServiceThread, session_id: str) -> Sequence[pb.StartKind.ValueType]:
    """How each of a session's turns came to its process."""
    async with client_of(thread.service) as client:
        told = client.watch(session_id, kinds=["turn_started"], replay_only=True)
        return [event.turn_started.latency.start async for event in told]


def normal(line: str) -> str:
    """A line of a stream without ids and times."""
    line = re.sub(r'"chatcmpl-[0-9a-f]{32}"', '"ID"', line)
    return re.sub(r"toolu_\w+", "CALL", re.sub(r'"created":\d+', '"created":0', line))


async def test_a_conversation_stays_on_its_process(
    client: AsyncOpenAI, thread: ServiceThread, model: Model
) -> None:
    """Whoever sends all of it again goes on where it was; the model is told nothing twice."""
    told = {"role": "developer", "content": [{"type": "text", "text": "Say no more."}]}
    caller = Caller(client, temperature=0.5, max_tokens=9)
    caller.messages = [{"role": "system", "content": "Be terse."}, told]
    await caller.say(user("one"))
    await caller.say(user("two"))
    completion = await caller.say(user("three"))
    (choice,) = completion.choices
    assert choice.message.content == "You said: three (message 3 of this conversation)"
    assert choice.finish_reason == "stop"
    assert completion.id.startswith("chatcmpl-")
    assert completion.model.startswith("claude-haiku")
    assert completion.usage is not None
    assert completion.usage.completion_tokens > 5
    assert caller.ignored == "temperature, max_tokens"
    assert len(set(caller.sessions)) == 1
    assert (await starts_of(thread, caller.sessions[0]))[1:] == [pb.START_KIND_HOT] * 2
    assert [each["role"] for each in model.said()] == ["user", "assistant"] * 2 + ["user"]
    assert "Be terse.\\n\\nSay no more." in json.dumps(model.asked[-1]["system"])
    assert model.asked[-1]["tools"] == []


async def test_another_past_goes_to_a_spare(
    client: AsyncOpenAI, thread: ServiceThread, model: Model
) -> None:
    """A conversation that no session has is told to another process, pictures and calls included."""
    caller = Caller(client, tools=[WEATHER])
    call = {"id": "call_1", "type": "function", "function": {"name": "weather", "arguments": ""}}
    picture = {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{PNG}"}}
    completion = await caller.say(
        user("one"),
        {"role": "assistant", "content": "Said elsewhere."},
        {"role": "user", "content": [{"type": "text", "text": "See"}, picture]},
        {"role": "assistant", "content": None, "tool_calls": [call]},
        result("call_1", "rain"),
        {"role": "assistant", "content": [{"type": "text", "text": "It rains."}]},
        user("and now?"),
    )
    assert (
        completion.choices[0].message.content
        == "You said: and now? (message 3 of this conversation)"
    )
    assert await starts_of(thread, caller.sessions[0]) == [pb.START_KIND_RESUMED]
    said = model.said()
    assert said[1]["content"][0]["text"] == "Said elsewhere."
    assert [block["type"] for block in said[2]["content"]] == ["text", "image"]
    assert said[2]["content"][1]["source"]["data"] == PNG
    assert said[3]["content"][0]["name"] == "mcp__client__weather"
    assert said[4]["content"][0]["tool_use_id"] == "call_1"


async def test_tools_run_on_the_caller_s_side(
    client: AsyncOpenAI, thread: ServiceThread, model: Model
) -> None:
    """The answer stops with the calls; with their results the same turn goes on, in the same process."""
    caller = Caller(client, tools=[WEATHER])
    completion = await caller.say(user(f"{ASKED}\n::say done"))
    (choice,) = completion.choices
    calls = choice.message.tool_calls or []
    assert (choice.message.content, choice.finish_reason) == ("I look.", "tool_calls")
    told = [
        (each.function.name, each.function.arguments) for each in calls if each.type == "function"
    ]
    assert told == [("weather", '{"city":"Basel"}'), ("weather", "{}")]
    results = [result(each.id, f"rain {at}") for at, each in enumerate(calls)]
    completion = await caller.say(*results)
    assert (completion.choices[0].message.content, completion.choices[0].finish_reason) == (
        "done",
        "stop",
    )
    completion = await caller.say(user("again"))
    assert len(set(caller.sessions)) == 1
    assert (await starts_of(thread, caller.sessions[0]))[1:] == [pb.START_KIND_HOT]
    given = [block for each in model.said() for block in each["content"] if "tool_use_id" in block]
    assert ["rain 0" in str(given[0]), "rain 1" in str(given[1])] == [True, True]


HEAD = '{"id":"ID","object":"chat.completion.chunk","created":0,"model":"MODEL","choices":'
CHUNKS = (
    '[{"index":0,"delta":{"role":"assistant","content":"","refusal":null},"logprobs":null,'
    '"finish_reason":null}],"usage":null}',
    '[{"index":0,"delta":{"content":"hi"},"logprobs":null,"finish_reason":null}],"usage":null}',
    '[{"index":0,"delta":{"tool_calls":[{"index":0,"id":"CALL","type":"function","function":'
    '{"name":"weather","arguments":""}}]},"logprobs":null,"finish_reason":null}],"usage":null}',
    '[{"index":0,"delta":{"tool_calls":[{"index":0,"function":{"arguments":"{\\"a\\":1}"}}]},'
    '"logprobs":null,"finish_reason":null}],"usage":null}',
    '[{"index":0,"delta":{},"logprobs":null,"finish_reason":"tool_calls"}],"usage":null}',
    '[],"usage":{"prompt_tokens":N,"completion_tokens":N,"total_tokens":N,'
    '"prompt_tokens_details":{"cached_tokens":N}}}',
)


async def test_the_stream_is_that_of_the_api(shim: Shim) -> None:
    """Line for line: a comment at once, the role, text, calls, the reason, usage, `[DONE]`.

    While the model is silent, comments, which no client shows.
    """
    body = {
        "model": MODEL,
        "messages": [user('::delay 700ms\n::say hi\n::tool mcp__client__weather {"a":1}')],
        "tools": [WEATHER],
        "stream": True,
        "stream_options": {"include_usage": True},
    }
    async with shim.http.stream("POST", "/v1/chat/completions", json=body) as answer:
        assert answer.headers["content-type"] == "text/event-stream; charset=utf-8"
        assert answer.headers["x-accel-buffering"] == "no"
        lines = [normal(line) async for line in answer.aiter_lines()]
    assert lines[0].startswith(": warmline")
    assert sum(line.startswith(": still here") for line in lines) >= 2
    data = [line for line in lines if line and not line.startswith(":")]
    seen = [
        re.sub(r"claude-[\w.-]+", "MODEL", re.sub(r'_tokens":\d+', '_tokens":N', x)) for x in data
    ]
    assert seen == [*(f"data: {HEAD}{chunk}" for chunk in CHUNKS), "data: [DONE]"]


async def test_a_stream_tells_what_a_completion_tells(client: AsyncOpenAI, shim: Shim) -> None:
    """The SDK puts the same answer together, and the next request finds its session by it."""
    caller = Caller(client, tools=[WEATHER])
    caller.messages = [user(f"{ASKED}\n::say done")]
    async with client.chat.completions.stream(
        model=MODEL, messages=caller.messages, tools=[WEATHER]
    ) as stream:
        session_id = stream._response.headers["x-session-id"]
        completion = await stream.get_final_completion()
    message = completion.choices[0].message
    assert message.content == "I look."
    assert [each.function.arguments for each in message.tool_calls or []] == [
        '{"city": "Basel"}',
        "{}",
    ]
    caller.messages.append(message.model_dump(exclude_none=True, exclude={"parsed"}))
    await caller.say(*(result(each.id, "rain") for each in message.tool_calls or []))
    assert caller.sessions == [session_id]


async def test_an_answer_has_the_form_that_is_asked_for(client: AsyncOpenAI) -> None:
    """The object alone, as text, in the order and with the numbers of the model; its session goes on."""
    script = '::say Well.\n::tool StructuredOutput {"name": "Basel", "people": 170000}'
    parsed = await client.chat.completions.parse(
        model=MODEL, messages=[{"role": "user", "content": script}], response_format=City
    )
    assert parsed.choices[0].message.parsed == City(name="Basel", people=170_000)
    assert parsed.choices[0].finish_reason == "stop"
    caller = Caller(client, response_format={"type": "json_object"})
    for text in ('{"z":1,"a":[2.5,true]}', '{"b":2}'):
        completion = await caller.say(user(f"::say Well.\n::tool StructuredOutput {text}"))
        assert completion.choices[0].message.content == text
    # What does not come is an error, not some text in its place.
    with pytest.raises(openai.APIStatusError) as caught:
        await caller.say(user("::say no"))
    assert caught.value.code == "output_invalid"
    assert len(set(caller.sessions)) == 1


REFUSED: list[tuple[dict[str, Any], str]] = [
    ({"n": 2}, "n"),
    ({"messages": []}, "messages"),
    ({"messages": [{"role": "system", "content": "x"}]}, "messages"),
    ({"messages": [user("x"), {"role": "assistant", "content": "y"}]}, "messages"),
    ({"stream_options": {"include_usage": True}}, "stream_options"),
    ({"modalities": ["audio"]}, "modalities.0"),
    ({"functions": []}, "functions"),
    ({"tools": [{"type": "custom"}]}, "tools.0.type"),
    ({"tools": [WEATHER, WEATHER]}, "tools"),
    ({"response_format": {"type": "xml"}}, "response_format"),
]
PARTS = (
    ("https://example.com/a.png", "messages[1].content[1].image_url.url"),
    ("data:image/png;base64,***", "messages[1].content[1].image_url.url"),
    ("data:image/svg+xml;base64,AAAA", "messages[1].content[1].image_url.url"),
)


async def test_what_cannot_be_done_is_refused_by_name(client: AsyncOpenAI) -> None:
    """400 in the API's shape, with the field."""
    for url, field in PARTS:
        parts = [{"type": "text", "text": "x"}, {"type": "image_url", "image_url": {"url": url}}]
        messages = [{"role": "system", "content": "x"}, {"role": "user", "content": parts}]
        REFUSED.append(({"messages": messages}, field))
    call = {"id": "c", "type": "function", "function": {"name": "f", "arguments": "[1]"}}
    told = [user("x"), {"role": "assistant", "tool_calls": [call]}, result("c", "y")]
    REFUSED.append(({"messages": told}, "messages[1].tool_calls[0].function.arguments"))
    for given, field in REFUSED:
        body = {"model": MODEL, "messages": [user("x")], **given}
        with pytest.raises(openai.BadRequestError) as caught:
            await client.chat.completions.create(**body)
        error = caught.value
        assert (error.param, error.code) == (field, "field_invalid"), given
        assert error.type == "invalid_request_error"


async def test_failures_have_their_status(client: AsyncOpenAI) -> None:
    """The SDK raises what it raises elsewhere; in a stream that has begun too."""

    async def ask(text: str, name: str = MODEL, **given: Any) -> Any:
        messages: Any = [user(text)]
        return await client.chat.completions.create(model=name, messages=messages, **given)

    with pytest.raises(openai.NotFoundError) as missing:
        await ask("x", "none-such")
    assert missing.value.code == "model_not_found"
    with pytest.raises(openai.RateLimitError) as limited:
        await ask("::error 429")
    assert limited.value.type == "rate_limit_error"
    stream: AsyncIterator[ChatCompletionChunk] = await ask("::error 529", stream=True)
    assert (await anext(stream)).choices[0].delta.role == "assistant"
    with pytest.raises(openai.APIError) as broken:
        await anext(stream)
    assert (broken.value.type, broken.value.code) == ("server_error", "upstream_overloaded")


def body_of(**given: Any) -> CompletionBody:
    """A request."""
    return CompletionBody.model_validate({"model": MODEL, "messages": [user("x")], **given})


def test_what_has_an_effect_and_what_has_none() -> None:
    """`tool_choice: none` leaves the tools out; what cannot be done is taken, and named."""
    for choice, ignored, count in (
        (None, "", 1),
        ("auto", "", 1),
        ("none", "", 0),
        ("required", "tool_choice", 1),
        ({"type": "function", "function": {"name": "weather"}}, "tool_choice", 1),
    ):
        body = body_of(tools=[WEATHER], tool_choice=choice)
        assert len(talk_of(body, "").config.client_tools) == count
        assert ignored_in(body) == ignored
    assert ignored_in(body_of(stop="x", seed=1, user="me", top_p=None)) == "stop, seed"
    config = talk_of(body_of(reasoning_effort="minimal"), "").config
    assert config.reasoning.effort == config_pb.EFFORT_LOW


def test_why_an_answer_ended() -> None:
    """In the API's words; the CLI goes on by itself after most of these, so no model shows them all."""
    ends = {"end_turn": "stop", "stop_sequence": "stop", "max_tokens": "length"}
    ends |= {"tool_use": "tool_calls", "refusal": "content_filter"}
    assert {reason: finish_of(Written(stop_reason=reason)) for reason in ends} == ends


def test_usage_counts_the_cache_as_prompt() -> None:
    """As the API does: what was read from it is a part."""
    counted = {"input_tokens": 1, "cache_creation_input_tokens": 20}
    counted |= {"cache_read_input_tokens": 300, "output_tokens": 4000}
    assert usage_of(counted) == {
        "prompt_tokens": 321,
        "completion_tokens": 4000,
        "total_tokens": 4321,
        "prompt_tokens_details": {"cached_tokens": 300},
    }


async def test_models_in_the_shape_of_either_api(client: AsyncOpenAI, shim: Shim) -> None:
    """Both SDKs list them and get one, by its alias too; one that is not there is 404."""
    ids = [each.id async for each in client.models.list()]
    assert len(ids) > 2
    assert (await client.models.retrieve(MODEL)).id in ids
    assert (await client.models.retrieve(ids[0])).owned_by
    with pytest.raises(openai.NotFoundError):
        await client.models.retrieve("none-such")
    async with AsyncAnthropic(base_url=shim.url, api_key="none") as other:
        assert [each.id async for each in other.models.list(limit=2)] == ids
        page = await other.models.list(before_id=ids[-1], limit=1)
        assert ([each.id for each in page.data], page.has_more) == ([ids[-2]], True)
        assert (await other.models.retrieve(MODEL)).display_name
        with pytest.raises(Exception, match="is the id of no model here"):
            await other.models.list(after_id="none-such")
