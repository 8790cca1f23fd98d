"""The caller's tools as an MCP server: every request gets an answer of its own."""

from typing import Any

import msgspec
import pytest
from warmline_service.chat._client_tools import Call, heard
from warmline_service.sessions import ClientTool

TOOL = ClientTool("weather", "Tells it", {"type": "object"}, 60.0)


def _heard(**message: Any) -> Any:
    return heard(msgspec.json.encode({"jsonrpc": "2.0", **message}), [TOOL])[1]


def test_a_call_is_for_the_caller() -> None:
    """With what the model wrote, and the call that it belongs to."""
    params = {"name": "weather", "arguments": {"a": 1}, "_meta": {"claudecode/toolUseId": "t"}}
    assert _heard(id=1, method="tools/call", params=params) == Call(TOOL, {"a": 1}, "t")


@pytest.mark.parametrize(
    "params", [{"name": "weather", "arguments": None}, [1], {"name": "other"}, "x"]
)
def test_a_bad_call_is_answered_by_its_id(params: Any) -> None:
    """Otherwise whoever called would wait for ever."""
    answer = _heard(id=7, method="tools/call", params=params)
    assert answer["id"] == 7
    assert answer["error"]["code"] == -32602


def test_what_is_not_known_is_answered() -> None:
    """By its id, or not at all where none is wanted."""
    assert _heard(id=1, method="resources/list")["error"]["code"] == -32601
    assert _heard(method="notifications/initialized")["result"] == {}
    refused: Any = heard(b"nonsense", [TOOL])[1]
    assert refused["error"]["code"] == -32602
    request, _ = heard(b'{"method":"notifications/cancelled","params":{"requestId":4}}', [TOOL])
    assert request.cancels == 4
