"""A client of a slot's socket, as the CLI is one, for tests."""

from __future__ import annotations

import io
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from copy import deepcopy
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp

Message = dict[str, Any]
MESSAGES = "http://localhost/v1/messages"


@dataclass
class Answer:
    """A whole answer; `events` only of a streamed one."""

    status: int
    headers: dict[str, str]
    body: bytes
    events: list[dict[str, Any]] = field(default_factory=list)

    @property
    def json(self) -> Message:
        """The body, or the message that the events add up to."""
        return dict(json.loads(self.body)) if not self.events else _joined(deepcopy(self.events))

    @property
    def text(self) -> str:
        """The text blocks, joined."""
        return "".join(block.get("text", "") for block in self.json["content"])

    @property
    def error(self) -> str:
        """The API's word for the error."""
        return str(self.json["error"]["type"])


def user(*texts: str) -> dict[str, Any]:
    """A user message of so many text blocks."""
    return {"role": "user", "content": [{"type": "text", "text": text} for text in texts]}


def assistant(text: str = "hm") -> dict[str, Any]:
    """What the model said before."""
    return {"role": "assistant", "content": [{"type": "text", "text": text}]}


def tool_result(text: str) -> dict[str, Any]:
    """The CLI's answer to a tool call."""
    return {"role": "user", "content": [{"type": "tool_result", "content": text}]}


def request(*messages: str | Message, **fields: object) -> dict[str, Any]:
    """A request's body; a plain string is a user message."""
    turns = [user(message) if isinstance(message, str) else message for message in messages]
    return {"model": "loopback", "max_tokens": 1000, "stream": True, "messages": turns} | fields


class ModelClient:
    """Asks over one connection pool."""

    def __init__(self, session: aiohttp.ClientSession) -> None:
        self.session = session

    async def ask(self, *messages: str | Message, **fields: object) -> Answer:
        """One request and its whole answer."""
        # A file-like body, because aiohttp warns of long ones in one piece.
        body = io.BytesIO(json.dumps(request(*messages, **fields)).encode())
        async with self.session.post(MESSAGES, data=body) as response:
            return await read(response)


async def read(response: aiohttp.ClientResponse) -> Answer:
    """The whole of a response."""
    body = await response.read()
    answer = Answer(response.status, {k.lower(): v for k, v in response.headers.items()}, body)
    if response.content_type == "text/event-stream":
        answer.events = events(body)
    return answer


def events(body: bytes) -> list[dict[str, Any]]:
    """The events of a stream; each one's name must be its type."""
    found = []
    for frame in body.decode().split("\n\n")[:-1]:
        name, data = frame.split("\n")
        found.append(json.loads(data.removeprefix("data: ")))
        assert name == f"event: {found[-1]['type']}"
    return found


@asynccontextmanager
async def connected(path: Path | str) -> AsyncIterator[ModelClient]:
    """A client of a unix socket."""
    connector = aiohttp.UnixConnector(str(path))
    timeout = aiohttp.ClientTimeout(total=20)
    async with aiohttp.ClientSession(connector=connector, timeout=timeout) as session:
        yield ModelClient(session)


def _joined(events: list[dict[str, Any]]) -> dict[str, Any]:
    message: dict[str, Any] = {}
    for event in events:
        match event["type"]:
            case "message_start":
                message = event["message"]
            case "content_block_start":
                message["content"].append(event["content_block"])
            case "content_block_delta":
                _add(message["content"][event["index"]], event["delta"])
            case "message_delta":
                message |= event["delta"] | {"usage": event["usage"]}
            case "error":
                message["error"] = event["error"]
    return message


def _add(block: dict[str, Any], delta: dict[str, Any]) -> None:
    match delta["type"]:
        case "input_json_delta":
            block["partial"] = block.get("partial", "") + delta["partial_json"]
            block["input"] = json.loads(block["partial"] or "{}")
        case kind:
            name = kind.removesuffix("_delta")
            block[name] += delta[name]
