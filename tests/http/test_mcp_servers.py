"""The `mcp_servers` of a request: its model calls their tools, and who may not is told; with the real CLI."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest
from conversing import Model
from mcp_servers import REACHABLE, TOKEN, Running, mcp_server
from shared import ServiceThread, shared_service
from shimming import Shim

pytestmark = [pytest.mark.real_cli, pytest.mark.shared_service]

ROUTES = ["/v1/messages", "/v1/messages/keepalive"]
ADD = '::tool mcp__sums__add {"a": 2, "b": 3}\n::say added'


@pytest.fixture(scope="module")
def thread(model: Model) -> Iterator[ServiceThread]:
    """The module's service, whose sessions may reach this machine."""
    with shared_service(model, mcp=REACHABLE) as made:
        yield made


@pytest.fixture(params=["http", "sse"])
async def sums(request: pytest.FixtureRequest) -> AsyncIterator[Running]:
    """A server with a tool that adds."""
    async with mcp_server(request.param) as made:
        yield made


def body(**server: Any) -> dict[str, Any]:
    """A request with one server."""
    messages = [{"role": "user", "content": ADD}]
    asked = {"model": "haiku", "max_tokens": 9, "messages": messages}
    return asked | {"mcp_servers": {"sums": server}}


@pytest.mark.parametrize("path", ROUTES)
async def test_their_tools_are_called(shim: Shim, model: Model, sums: Running, path: str) -> None:
    """By either transport, with the token of the request, which is not told again."""
    server = {"url": sums.url, "transport": sums.kind, "auth_type": "bearer", "auth_token": TOKEN}
    answer = await shim.http.post(path, json=body(**server))
    assert answer.status_code == 200, answer.text
    assert sums.calls == ["add"]
    assert '{"result":5}' in str(model.said()[-1]["content"])
    assert "added" in answer.text
    assert TOKEN not in answer.text


@pytest.mark.parametrize("path", ROUTES)
async def test_a_server_that_lets_nobody_in_keeps_no_answer_back(
    shim: Shim, sums: Running, path: str
) -> None:
    """Its tools are not there; the model is told so, and goes on."""
    server = {"url": sums.url, "transport": sums.kind, "auth_type": "bearer", "auth_token": "no"}
    answer = await shim.http.post(path, json=body(**server))
    assert answer.status_code == 200, answer.text
    assert "added" in answer.text
    assert sums.calls == []
