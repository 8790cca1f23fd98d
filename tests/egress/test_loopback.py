"""The loopback model, asked over a slot's socket."""

import asyncio
import json

import aiohttp
import pytest
from egress.client import MESSAGES, ModelClient, assistant, events, request, tool_result, user
from warmline_service.egress import Egress, LoopbackModel, Tokens

REMINDER = "<system-reminder>::say wrong</system-reminder>"
TOOL = '::say look\n::tool Bash {"command": "echo hi"}\n::say done'


async def test_without_a_script_it_says_what_it_was_told(client: ModelClient) -> None:
    """The answer names the text and counts what people wrote, so that context can be seen."""
    answer = await client.ask("one", assistant(), "two")
    assert answer.text == "You said: two (message 2 of this conversation)"
    assert answer.json["stop_reason"] == "end_turn"


@pytest.mark.parametrize("stream", [True, False])
async def test_say_says_it_in_both_forms(client: ModelClient, stream: bool) -> None:
    """A streamed answer and a whole one hold the same."""
    answer = await client.ask("::say Hello, world  of\u2028lines", stream=stream)
    assert answer.text == "Hello, world  of\u2028lines"
    assert answer.headers["request-id"].startswith("req_")


@pytest.mark.parametrize("stream", [True, False])
async def test_text_writes_so_many_tokens(client: ModelClient, stream: bool) -> None:
    """Tokens on the wire are what the usage says."""
    answer = await client.ask("::text 200", stream=stream)
    assert answer.json["usage"]["output_tokens"] == 200
    assert len(answer.text.split()) == 200


async def test_each_token_is_a_delta(client: ModelClient) -> None:
    """Also in a burst, so that loads are what they are said to be."""
    answer = await client.ask("::text 200")
    assert sum(event["type"] == "content_block_delta" for event in answer.events) == 200


@pytest.mark.parametrize("stream", [True, False])
async def test_think_comes_as_a_signed_block(client: ModelClient, stream: bool) -> None:
    """Thinking is a block of its own before the text."""
    thinking, text = (await client.ask("::think 5\n::say so", stream=stream)).json["content"]
    assert thinking["thinking"]
    assert thinking["signature"] == "loopback"
    assert text == {"type": "text", "text": "so"}


@pytest.mark.parametrize("stream", [True, False])
async def test_tool_calls_the_tool(client: ModelClient, stream: bool) -> None:
    """The reply stops for the CLI to run it."""
    message = (await client.ask(TOOL, stream=stream)).json
    call = message["content"][1]
    assert (call["name"], call["input"]) == ("Bash", {"command": "echo hi"})
    assert message["stop_reason"] == "tool_use"


async def test_after_the_tools_result_the_script_goes_on(client: ModelClient) -> None:
    """The place in the script is counted from the request alone."""
    answer = await client.ask("before", assistant(), TOOL, assistant(), tool_result("hi"))
    assert answer.text == "done"


async def test_a_script_that_is_done_reports_the_tools_answer(client: ModelClient) -> None:
    """After the last step there is still an answer to give."""
    answer = await client.ask("::tool Bash", assistant(), tool_result("it worked"))
    assert answer.text == "The tool answered: it worked"


async def test_what_the_cli_adds_does_not_confuse_it(client: ModelClient) -> None:
    """Reminders, system messages and what was interrupted are not the user's last words."""
    system = {"role": "system", "content": "::say wrong"}
    last = user(REMINDER, "::hang", "[Request interrupted by user]", "::say right", REMINDER)
    assert (await client.ask("::hang", assistant(), last, system)).text == "right"


@pytest.mark.parametrize("stream", [True, False])
async def test_error_answers_in_the_apis_shape(client: ModelClient, stream: bool) -> None:
    """Status, type and retry-after are those of the real API."""
    answer = await client.ask("::error 529 retry-after 3", stream=stream)
    assert (answer.status, answer.error) == (529, "overloaded_error")
    assert answer.headers["retry-after"] == "3"


async def test_error_times_counts_one_requests_tries(client: ModelClient) -> None:
    """The same request succeeds at last; another conversation counts for itself."""
    script = "::error 500 times 2\n::say at last"
    statuses = [(await client.ask(script)).status for _ in range(3)]
    assert statuses == [500, 500, 200]
    assert (await client.ask("hi", assistant(), script)).status == 500


async def test_error_after_text_is_an_event(client: ModelClient, egress: Egress) -> None:
    """A stream that has begun fails inside it, and the account knows."""
    answer = await client.ask("::say half\n::error 529")
    assert answer.status == 200
    assert answer.events[-1]["error"]["type"] == "overloaded_error"
    fault = egress.last_error("s1")
    assert fault is not None
    assert fault.status == 529


async def test_cut_drops_the_connection_at_once(client: ModelClient) -> None:
    """Before any step the client gets no response at all."""
    with pytest.raises(aiohttp.ServerDisconnectedError):
        await client.ask("::cut")


async def test_cut_drops_the_connection_mid_stream(client: ModelClient) -> None:
    """What was written arrives, the end does not."""
    async with client.session.post(MESSAGES, json=request("::text 3\n::cut")) as response:
        with pytest.raises(aiohttp.ClientPayloadError):
            await response.read()


async def test_hang_keeps_the_connection_after_what_was_said(client: ModelClient) -> None:
    """The text before it comes; nothing follows, and leaving ends it."""
    async with client.session.post(MESSAGES, json=request("::say wait\n::hang")) as response:
        body = b""
        while b"content_block_stop" not in body:
            body += await response.content.readany()
        assert events(body)[2]["delta"]["text"] == "wait"
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(response.content.readany(), 0.02)


@pytest.mark.parametrize("reason", ["max_tokens", "refusal", "stop_sequence", "end_turn"])
async def test_stop_ends_with_the_reason(client: ModelClient, reason: str) -> None:
    """The reason is the API's word."""
    assert (await client.ask(f"::say a\n::stop {reason}")).json["stop_reason"] == reason


@pytest.mark.parametrize("stream", [True, False])
async def test_max_tokens_of_the_request_holds(client: ModelClient, stream: bool) -> None:
    """As with the real API an answer is never longer."""
    message = (await client.ask("::text 900", max_tokens=10, stream=stream)).json
    assert message["usage"]["output_tokens"] == 10
    assert message["stop_reason"] == "max_tokens"


@pytest.mark.parametrize(
    ("what", "sent"),
    [("system", [{"type": "text", "text": "Be brief."}]), ("model", "m-1"), ("tools", [{"a": 1}])],
)
async def test_echo_answers_with_what_was_sent(
    client: ModelClient, what: str, sent: object
) -> None:
    """What reached the model can be proved from outside."""
    answer = await client.ask(f"::echo {what}", **{what: sent})
    assert json.loads(answer.text) == sent


async def test_echo_messages_and_request_hold_the_conversation(client: ModelClient) -> None:
    """Also the message with the script."""
    sent = request(user("a"), assistant("b"), user("::echo messages"))
    assert json.loads((await client.ask(*sent["messages"])).text) == sent["messages"]
    whole = json.loads((await client.ask("::echo request")).text)
    assert whole == request("::echo request")


async def test_a_mistake_in_a_script_is_told(client: ModelClient) -> None:
    """As an answer, so that who wrote it sees it."""
    answer = await client.ask("::text many")
    assert answer.text.startswith("The script is not understood: line 1: ::text expects a number")


async def test_a_body_that_is_no_request_is_refused(client: ModelClient) -> None:
    """In the API's shape, and without an exception."""
    for body in (b"", b"{", b"[" * 100_000, b'{"messages":[1]}', b"\xff", b'{"messages":"x"}'):
        async with client.session.post(MESSAGES, data=body) as response:
            assert response.status == 400
            assert (await response.json())["error"]["type"] == "invalid_request_error"


async def test_count_tokens_counts_and_is_not_metered(client: ModelClient, egress: Egress) -> None:
    """The count is that of the request's usage."""
    body = request("hello " * 100)
    async with client.session.post(f"{MESSAGES}/count_tokens?beta=true", json=body) as response:
        counted = (await response.json())["input_tokens"]
    assert egress.meter("s1").requests == 0
    assert counted == (await client.ask("hello " * 100)).json["usage"]["input_tokens"] > 100


async def test_the_cache_is_written_first_and_read_later(client: ModelClient) -> None:
    """With cache_control all but the last message is cached from a conversation's start on."""
    system = [{"type": "text", "text": "s" * 400, "cache_control": {"type": "ephemeral"}}]
    first = (await client.ask("a", system=system)).json["usage"]
    later = (await client.ask("a", assistant(), "b", system=system)).json["usage"]
    assert first["cache_creation_input_tokens"] > 100 > first["cache_read_input_tokens"] == 0
    assert later["cache_read_input_tokens"] > 100 > later["cache_creation_input_tokens"] == 0


@pytest.mark.parametrize("stream", [True, False])
async def test_the_meter_equals_the_usage_on_the_wire(
    client: ModelClient, egress: Egress, stream: bool
) -> None:
    """Sums over requests, by the model that was asked."""
    meter = egress.meter("s1")
    usages = [(await client.ask(f"::text {n}", stream=stream)).json["usage"] for n in (3, 4)]
    used = meter.snapshot()["loopback"]
    assert used == Tokens(sum(usage["input_tokens"] for usage in usages), 7)
    assert meter.requests == 2


async def test_requests_are_remembered(client: ModelClient, model: LoopbackModel) -> None:
    """Tests can look at what the model was sent."""
    client.session.headers["X-Claude-Code-Session-Id"] = "abc"
    await client.ask("hello", model="m")
    (record,) = model.requests
    assert (record.session, record.model, record.stream) == ("abc", "m", True)
    assert record.body is not None
    assert b"hello" in record.body


async def test_a_big_request_passes(client: ModelClient, model: LoopbackModel) -> None:
    """Twenty megabytes are no trouble."""
    assert (await client.ask("x" * 20_000_000, stream=False)).status == 200
    assert model.requests[0].size > 20_000_000
