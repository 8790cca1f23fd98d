"""What `/v1/messages` takes beside Anthropic's own fields, and how its answers end that are not whole."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import httpx
import pytest
from conversing import Model
from golden import Golden
from shimming import Shim, cli_lines
from warmline_service.egress._account import Account

pytestmark = [pytest.mark.real_cli, pytest.mark.shared_service]

KEEPALIVE = "/v1/messages/keepalive"
TOOL = {"name": "weather", "input_schema": {"type": "object"}}


def body(content: Any, **more: Any) -> dict[str, Any]:
    """A request with one message."""
    asked = {"model": "haiku", "max_tokens": 9} | more
    return asked | {"messages": [{"role": "user", "content": content}]}


def _plain(line: dict[str, Any]) -> Any:
    """What a line is for: all else that it has is the affair of the CLI, and of its version."""
    if line["type"] == "result":
        return {key: line[key] for key in ("is_error", "num_turns", "result", "stop_reason")}
    if line["type"] == "system":
        return sorted(line) if line["subtype"] == "warmline" else "…"
    return line["message"]["content"]


async def test_the_lines_of_keepalive_are_as_they_always_were(shim: Shim) -> None:
    """Those of the CLI and the service's own, of a turn with thinking and a tool."""
    told = '::think 3\n::say hello\n::tool Bash {"command":"echo hi"}\n::say done'
    answer = await shim.http.post(KEEPALIVE, json=body(told, system="golden"))
    golden = Golden()
    for line in cli_lines(answer):
        if line.get("subtype") not in ("status", "thinking_tokens"):  # As many as it takes.
            golden.take(line["type"], _plain(line))
    golden.check("keepalive.txt")


async def test_an_agent_leads(shim: Shim, model: Model) -> None:
    """One of those that the request brings; another name is refused, by the field."""
    agent = {"description": "Reviews", "prompt": "You are the reviewer.", "tools": ["Read"]}
    asked = body("hi", agents={"reviewer": agent}, agent_type="reviewer")
    answer = await shim.http.post("/v1/messages", json=asked)
    assert answer.status_code == 200, answer.text
    sent = model.asked[-1]
    assert "You are the reviewer." in json.dumps(sent["system"])
    assert {each["name"] for each in sent["tools"]} >= {"Read"}
    assert "Bash" not in {each["name"] for each in sent["tools"]}
    unknown = await shim.http.post("/v1/messages", json=body("hi", agent_type="nobody"))
    assert unknown.status_code == 400
    assert "agent" in unknown.json()["error"]["message"]


async def test_which_tools_run_is_told_beside_the_answer(shim: Shim) -> None:
    """By comments, which no SDK shows."""
    agent = {"description": "Lists", "prompt": "You list."}
    text = '::tool Glob {"pattern":"*"}\n::say done'
    asked = body(text, agents={"lister": agent}, stream=True)
    answer = await shim.http.post("/v1/messages", json=asked)
    assert ": tool Glob" in comments(answer)


async def test_what_a_message_waits_for_is_told_beside_the_answer(shim: Shim) -> None:
    """Whoever left the turn before it may come back at once."""
    asked = body("::pace 20ms\n::text 200", stream=True)
    async with shim.http.stream("POST", "/v1/messages", json=asked) as gone:
        session = gone.headers["x-session-id"]
        async for line in gone.aiter_lines():
            if "text_delta" in line:
                break
    after = body("next", session_id=session, stream=True)
    async with asyncio.timeout(60):
        while (answer := await shim.http.post("/v1/messages", json=after)).status_code == 409:
            await asyncio.sleep(0.02)
    assert ": queued, 1 before it" in comments(answer)


def comments(answer: httpx.Response) -> list[str]:
    """What no SDK shows."""
    return [line.rstrip() for line in answer.text.split("\n") if line.startswith(": ")]


async def test_a_stopped_answer_does_not_look_whole(shim: Shim) -> None:
    """It ends as one that was cut, in a stream and at once."""
    for stream in (True, False):
        asked = body("::pace 20ms\n::text 300", system=f"S{stream}", stream=stream)
        sending = asyncio.create_task(shim.http.post("/v1/messages", json=asked))
        await _interrupt(shim)
        answer = await sending
        if not stream:
            assert answer.json()["stop_reason"] == "max_tokens"
            continue
        told = [json.loads(x[6:]) for x in answer.text.split("\n") if x.startswith("data: ")]
        (end,) = [each for each in told if each["type"] == "message_delta"]
        assert end["delta"]["stop_reason"] == "max_tokens"
        assert told[-1]["type"] == "message_stop"


async def _interrupt(shim: Shim) -> None:
    """Stop the one turn that runs, once it has said something."""
    async with asyncio.timeout(60):
        while True:
            known = (
                await shim.http.get("/v1/sessions", params={"order_by": "update_time desc"})
            ).json()
            for each in known.get("sessions", []):
                path = f"/v1/sessions/{each['id']}"
                events = await shim.http.get(f"{path}/events", params={"kinds": "text_delta"})
                if not events.json().get("events"):
                    continue
                stopped = (await shim.http.delete(f"{path}/turn")).json()
                if stopped["outcome"] == "OUTCOME_STOPPED":
                    return
            await asyncio.sleep(0.05)


async def test_keepalive_stops_at_a_call_of_the_callers_tool(shim: Shim) -> None:
    """And goes on with the turn when the next request has its result."""
    call = '::tool mcp__client__weather {"city":"Basel"}\n::say done'
    asked = body(call, system="T", tools=[TOOL])
    told = cli_lines(await shim.http.post(KEEPALIVE, json=asked))
    (use,) = [
        block
        for each in told
        if each["type"] == "assistant"
        for block in each["message"]["content"]
        if block["type"] == "tool_use"
    ]
    messages = [
        asked["messages"][0],
        {"role": "assistant", "content": [use]},
        {
            "role": "user",
            "content": [{"type": "tool_result", "tool_use_id": use["id"], "content": "sunny"}],
        },
    ]
    rest = cli_lines(await shim.http.post(KEEPALIVE, json=asked | {"messages": messages}))
    assert rest[-1]["type"] == "result"
    assert rest[-1]["num_turns"] == 2


async def test_keepalive_goes_on_after_a_failure(shim: Shim) -> None:
    """The conversation is the caller's last one still."""
    first = await shim.http.post(KEEPALIVE, json=body("one", system="G"))
    failed = cli_lines(await shim.http.post(KEEPALIVE, json=body("::error 400", system="G")))
    assert failed[-1]["type"] == "error"
    after = await shim.http.post(KEEPALIVE, json=body("three", system="G"))
    assert after.headers["x-session-id"] == first.headers["x-session-id"]
    assert "message 1 " not in cli_lines(after)[-1]["result"]


async def test_keepalive_goes_on_for_who_went_away(shim: Shim) -> None:
    """The turn has run to its end."""
    asked = body("::pace 20ms\n::text 100", system="W")
    async with shim.http.stream("POST", KEEPALIVE, json=asked) as gone:
        session = gone.headers["x-session-id"]
        async for line in gone.aiter_lines():
            if "warmline" in line and line.startswith("data"):
                break
    async with asyncio.timeout(60):
        ends, path = {"kinds": "turn_completed"}, f"/v1/sessions/{session}/events"
        while not (await shim.http.get(path, params=ends)).json().get("events"):
            await asyncio.sleep(0.1)
    after = await shim.http.post(KEEPALIVE, json=body("after", system="W"))
    assert after.headers["x-session-id"] == session
    assert "message 1 " not in cli_lines(after)[-1]["result"]


async def test_what_a_session_has_already_is_said_to_have_no_effect(shim: Shim) -> None:
    """It was set up when it began."""
    first = await shim.http.post("/v1/messages", json=body("one"))
    named = {"session_id": first.headers["x-session-id"]}
    asked = body("two", **named, system="Other.", model="opus")
    answer = await shim.http.post("/v1/messages", json=asked)
    assert answer.status_code == 200
    assert answer.headers["x-warmline-ignored"] == "max_tokens, model, system"


@pytest.mark.parametrize(
    ("auth", "wrong"),
    [({"auth_type": "bearer"}, "needs"), ({"auth_type": "none", "auth_token": "s3cret"}, "none")],
)
async def test_how_a_server_is_shown_a_token_has_to_fit(
    shim: Shim, auth: dict[str, str], wrong: str
) -> None:
    """A token is neither sent nor left out against what was said."""
    servers = {"here": {"url": "https://mcp.example/mcp"} | auth}
    answer = await shim.http.post("/v1/messages", json=body("hi", mcp_servers=servers))
    assert answer.status_code == 400
    message = answer.json()["error"]["message"]
    assert "mcp_servers.here" in message
    assert wrong in message
    assert "s3cret" not in message


async def test_tokens_are_counted_without_what_is_not_the_apis(
    shim: Shim, model: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A credential in the body goes nowhere."""
    counted: list[bytes] = []
    count = model.provider.count

    async def noted(body: bytes, account: Account) -> tuple[int, bytes]:
        counted.append(body)
        return await count(body, account)

    monkeypatch.setattr(model.provider, "count", noted)
    more = {"oauth_credentials": {"access_token": "s3cret"}, "session_id": "", "agent_type": ""}
    answer = await shim.http.post("/v1/messages/count_tokens", json=body("hi", **more))
    assert answer.json()["input_tokens"] > 0
    (sent,) = counted
    assert b"s3cret" not in sent
    assert not set(json.loads(sent)) & set(more)


@pytest.mark.parametrize(
    ("reason", "told", "texts"),
    [
        ("stop_sequence", "stop_sequence", 1),
        # The CLI asks the model to go on, so that the answer is whole in the end.
        ("max_tokens", "end_turn", 2),
        ("refusal", "end_turn", 2),
    ],
)
async def test_the_last_reason_to_stop_is_told(
    shim: Shim, reason: str, told: str, texts: int
) -> None:
    """That of the model's last answer in the turn."""
    answer = (await shim.http.post("/v1/messages", json=body(f"::say one\n::stop {reason}"))).json()
    assert answer["stop_reason"] == told
    assert [block["type"] for block in answer["content"]] == ["text"] * texts
