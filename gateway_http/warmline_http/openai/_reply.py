"""What the model writes, as the API tells it: a completion, or its chunks."""

from __future__ import annotations

import time
import uuid
from collections.abc import Iterable, Mapping
from typing import Any

import msgspec

from warmline_http import _sse
from warmline_http._merging import Step, Written

# Other reasons are a plain end.
FINISH = {
    "max_tokens": "length",
    "model_context_window_exceeded": "length",
    "tool_use": "tool_calls",
    "refusal": "content_filter",
}
DONE = _sse.event(b"[DONE]")


class Reply:
    """One answer of a model; `with_usage`: its stream ends with what it used."""

    def __init__(self, model: str, *, with_usage: bool = False) -> None:
        self._id = f"chatcmpl-{uuid.uuid4().hex}"
        self._created = int(time.time())
        self._model = model
        self._with_usage = with_usage
        # The place of a call among the calls, by that of its block; those whose arguments have begun.
        self._calls: dict[int, int] = {}
        self._given: set[int] = set()

    def whole(self, written: Written) -> bytes:
        """The completion."""
        texts = [each["text"] for each in written.content if each["type"] == "text"]
        calls = [each for each in written.content if each["type"] == "tool_use"]
        message: dict[str, Any] = {
            "role": "assistant",
            "content": "".join(texts) if texts or not calls else None,
            "refusal": None,
        }
        if calls:
            message["tool_calls"] = [
                _call(each, msgspec.json.encode(each["input"]).decode()) for each in calls
            ]
        choice = {
            "index": 0,
            "message": message,
            "logprobs": None,
            "finish_reason": finish_of(written),
        }
        told = {"choices": [choice], "usage": usage_of(written.usage)}
        return msgspec.json.encode(self._head("chat.completion") | told)

    def begin(self) -> bytes:
        """The first chunk."""
        return self._chunk({"role": "assistant", "content": "", "refusal": None})

    def take(self, step: Step) -> Iterable[bytes]:
        """The chunks of a step."""
        match step["type"]:
            case "content_block_start" if step["content_block"]["type"] == "tool_use":
                place = self._calls[step["index"]] = len(self._calls)
                call = {"index": place, **_call(step["content_block"], "")}
                yield self._chunk({"tool_calls": [call]})
            case "content_block_delta" if step["delta"]["type"] == "text_delta":
                yield self._chunk({"content": step["delta"]["text"]})
            case "content_block_delta" if step["delta"]["type"] == "input_json_delta":
                if step["delta"]["partial_json"]:
                    yield self._arguments(step["index"], step["delta"]["partial_json"])
            case "content_block_stop" if step["index"] in self._calls.keys() - self._given:
                yield self._arguments(step["index"], "{}")

    def end(self, written: Written) -> Iterable[bytes]:
        """The last chunks."""
        yield self._chunk({}, finish_of(written))
        if self._with_usage:
            told = {"choices": [], "usage": usage_of(written.usage)}
            yield _sse.event(msgspec.json.encode(self._head("chat.completion.chunk") | told))
        yield DONE

    def _arguments(self, index: int, text: str) -> bytes:
        self._given.add(index)
        call = {"index": self._calls[index], "function": {"arguments": text}}
        return self._chunk({"tool_calls": [call]})

    def _chunk(self, delta: Mapping[str, Any], finish: str | None = None) -> bytes:
        choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish}
        told = self._head("chat.completion.chunk") | {"choices": [choice]}
        if self._with_usage:
            told["usage"] = None
        return _sse.event(msgspec.json.encode(told))

    def _head(self, kind: str) -> dict[str, Any]:
        return {"id": self._id, "object": kind, "created": self._created, "model": self._model}


def finish_of(written: Written) -> str:
    """Why it ended."""
    return FINISH.get(written.stop_reason, "stop")


def usage_of(counted: Mapping[str, int]) -> dict[str, Any]:
    """What it used; what is read from the cache is part of the prompt here."""
    cached = counted.get("cache_read_input_tokens", 0)
    prompt = counted.get("input_tokens", 0) + counted.get("cache_creation_input_tokens", 0) + cached
    completion = counted.get("output_tokens", 0)
    return {
        "prompt_tokens": prompt,
        "completion_tokens": completion,
        "total_tokens": prompt + completion,
        "prompt_tokens_details": {"cached_tokens": cached},
    }


def _call(block: Mapping[str, Any], arguments: str) -> dict[str, Any]:
    function = {"name": block["name"], "arguments": arguments}
    return {"id": block["id"], "type": "function", "function": function}
