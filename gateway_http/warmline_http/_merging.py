"""One message of Anthropic's API made of all that the model writes in a turn."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import msgspec

OWN_TOOL = "mcp__client__"
# A step that is no event of the API's: `text` says how the turn goes on.
PROGRESS = "progress"

Step = Mapping[str, Any]


class Line(msgspec.Struct):
    event: dict[str, Any] = {}  # msgspec copies an empty default
    parent_tool_use_id: str | None = None


line_of = msgspec.json.Decoder(Line).decode


@dataclass
class Written:
    """The answer so far: its blocks, as the API has them, and how it ended."""

    id: str = ""
    model: str = ""
    content: list[dict[str, Any]] = field(default_factory=list)
    stop_reason: str = "end_turn"
    stop_sequence: str | None = None
    usage: dict[str, int] = field(default_factory=dict)


class Merging:
    """Makes one message of all that the model writes in a turn; calls of the CLI's own tools are left out.

    `formed`: the session has an output schema, so that the answer's text is `form` alone.
    """

    def __init__(self, written: Written, *, formed: bool) -> None:
        self._written = written
        self._formed = formed
        self._begun = False
        self._output_before = 0
        # By the index in the message at hand: the one in what is told, where it is told.
        self._told: dict[int, int] = {}
        self._input: dict[int, list[str]] = {}
        # Of blocks that go on, by their place and field.
        self._pieces: dict[tuple[int, str], list[str]] = {}
        self._last: dict[str, Any] = {}
        self._calls = False

    @property
    def asks(self) -> bool:
        """Whether the model waits for the caller's tools."""
        return self._calls and self._last.get("stop_reason") == "tool_use"

    def take(self, line: Line) -> Iterable[Step]:
        """The steps of a line."""
        if line.parent_tool_use_id is not None:
            return ()  # A sub-agent's: no part of the answer.
        event = line.event
        match event.get("type"):
            case "message_start":
                return self._start(event["message"])
            case "content_block_start":
                return self._block(event["index"], event["content_block"])
            case "content_block_delta":
                return self._delta(event["index"], event["delta"], event)
            case "content_block_stop":
                return self._stop(event["index"])
            case "message_delta":
                self._last = event["delta"]
                self._count(event.get("usage") or {})
        return ()

    def cut(self) -> None:
        """Somebody has stopped the turn: as much as there is."""
        self._last = {"stop_reason": "max_tokens"}

    def form(self, text: str) -> Iterable[Step]:
        """The answer in the form of the schema, as a block of text."""
        place = len(self._written.content)
        block = {"type": "text", "text": ""}
        yield {"type": "content_block_start", "index": place, "content_block": block}
        delta = {"type": "text_delta", "text": text}
        yield {"type": "content_block_delta", "index": place, "delta": delta}
        yield {"type": "content_block_stop", "index": place}
        self._written.content.append({"type": "text", "text": text})
        self._last = {"stop_reason": "end_turn"}

    def join(self) -> None:
        """Let `written` have whole texts, also those of a block that was cut."""
        for (place, name), pieces in self._pieces.items():
            block = self._written.content[place]
            block[name] = block.get(name, "") + "".join(pieces)
        self._pieces.clear()

    def end(self) -> Iterable[Step]:
        """The last steps."""
        written = self._written
        written.stop_reason = self._last.get("stop_reason") or "end_turn"
        written.stop_sequence = self._last.get("stop_sequence")
        delta = {"stop_reason": written.stop_reason, "stop_sequence": written.stop_sequence}
        yield {"type": "message_delta", "delta": delta, "usage": written.usage}
        yield {"type": "message_stop"}

    def _start(self, message: dict[str, Any]) -> Iterable[Step]:
        usage = message.get("usage") or {}
        self._told, self._calls, self._last = {}, False, {}
        self._output_before = self._written.usage.get("output_tokens", 0)
        if self._begun:
            self._count(usage, more=True)
            return
        self._begun = True
        self._written.id, self._written.model = message["id"], message["model"]
        self._written.usage = dict(usage)
        yield {"type": "message_start", "message": {**message, "content": []}}

    def _count(self, usage: Mapping[str, Any], *, more: bool = False) -> None:
        counted = self._written.usage
        for name, value in usage.items():
            if not isinstance(value, int) or isinstance(value, bool):
                continue
            if name == "output_tokens":
                counted[name] = self._output_before + value
            elif more:
                counted[name] = counted.get(name, 0) + value
            else:
                counted.setdefault(name, value)

    def _block(self, index: int, block: dict[str, Any]) -> Iterable[Step]:
        if block["type"] == "tool_use":
            if not block["name"].startswith(OWN_TOOL):
                return
            self._calls = True
            block = {**block, "name": block["name"].removeprefix(OWN_TOOL)}
        elif self._formed and block["type"] == "text":
            return
        place = self._told[index] = len(self._written.content)
        self._written.content.append(dict(block))
        yield {"type": "content_block_start", "index": place, "content_block": block}

    def _delta(self, index: int, delta: dict[str, Any], event: dict[str, Any]) -> Iterable[Step]:
        place = self._told.get(index)
        if place is None:
            return
        block = self._written.content[place]
        match delta["type"]:
            case "text_delta":
                self._pieces.setdefault((place, "text"), []).append(delta["text"])
            case "thinking_delta":
                self._pieces.setdefault((place, "thinking"), []).append(delta["thinking"])
            case "signature_delta":
                block["signature"] = delta["signature"]
            case "input_json_delta":
                self._input.setdefault(place, []).append(delta["partial_json"])
        yield {**event, "index": place}

    def _stop(self, index: int) -> Iterable[Step]:
        place = self._told.get(index)
        if place is None:
            return
        written = "".join(self._input.pop(place, ()))
        if written:
            # Where the answer was cut in its middle, a call has no input.
            with suppress(msgspec.DecodeError):
                self._written.content[place]["input"] = msgspec.json.decode(written)
        yield {"type": "content_block_stop", "index": place}
