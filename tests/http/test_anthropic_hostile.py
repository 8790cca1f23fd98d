"""What the Messages API cannot say is refused by name, in its shape, and is no fault of ours."""

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from running import faking, running_service
from shimming import Shim, shim_before, shim_to
from structlog.testing import capture_logs
from warmline_http._link import Link

_DEEP: Any = "x"
for _ in range(300):
    _DEEP = {"a": _DEEP}
_USER = {"role": "user", "content": "x"}


@pytest.fixture
async def shim() -> AsyncIterator[Shim]:
    """A shim with nothing behind it."""
    async with shim_to("127.0.0.1:1") as made:
        yield made


async def refused(shim: Shim, path: str, body: Any) -> str:
    """What an API says to a request that it refuses, in Anthropic's shape."""
    # httpx would refuse to send some of it.
    kind = {"content-type": "application/json"}
    answer = await shim.http.post(path, content=json.dumps(body), headers=kind)
    assert answer.status_code == 400, answer.text
    told = answer.json()
    assert (told["type"], told["error"]["type"]) == ("error", "invalid_request_error")
    return str(told["error"]["message"])


def _used(given: Any) -> list[Any]:
    """A conversation in which the model called a tool."""
    call = {"type": "tool_use", "id": "c", "name": "f", "input": given}
    result = {"type": "tool_result", "tool_use_id": "c", "content": "y"}
    return [
        _USER,
        {"role": "assistant", "content": [call]},
        {"role": "user", "content": [result]},
        {"role": "assistant", "content": "done"},
        _USER,
    ]


@pytest.mark.parametrize(
    ("more", "field"),
    [
        ({"next_year": "\ud800"}, "next_year"),
        ({"next_year": [{"\ud800": 1}]}, "next_year"),
        ({"next_year": _DEEP}, "next_year"),
        ({"tools": [{"name": "f", "input_schema": _DEEP}]}, "tools"),
        ({"messages": _used({"a": "\ud800"})}, "messages"),
    ],
    ids=["text", "name", "depth", "schema", "input"],
)
async def test_what_cannot_be_passed_on_is_named(
    shim: Shim, more: dict[str, Any], field: str
) -> None:
    """Tokens are counted of fields that we do not know too, so they may hold anything."""
    path = "/v1/messages/count_tokens"
    said = await refused(shim, path, {"model": "haiku", "messages": [_USER]} | more)
    assert said.startswith(f"{field}: ")


async def test_a_number_that_json_has_not_is_named(tmp_path: Path) -> None:
    """In what the model is said to have called a tool with; JSON of Python's has it."""
    async with running_service(cli=faking(tmp_path)) as service, shim_before(service) as shim:
        for number in (float("inf"), float("nan")):
            body = {"max_tokens": 9, "messages": _used({"a": [number]})}
            assert "tool_call.input: " in await refused(shim, "/v1/messages", body)


async def test_a_fault_says_that_the_connection_ends(
    shim: Shim, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The server closes it after one; a client that was not told would send its next request there."""

    async def faulty(*_: Any) -> None:
        raise LookupError("what callers must not see")

    monkeypatch.setattr(Link, "unary", faulty)
    body = {"messages": [_USER]}
    with capture_logs():
        answer = await shim.http.post("/v1/messages/count_tokens", json=body)
    assert (answer.status_code, answer.headers["connection"]) == (500, "close")
    monkeypatch.undo()
    assert (await shim.http.get("/livez")).status_code == 200
