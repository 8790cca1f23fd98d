"""Conversations that callers keep: what makes two of them one, and what becomes of what the model writes."""

from __future__ import annotations

import json
from typing import Any

import pytest
from warmline.v1 import session_config_pb2 as config_pb
from warmline_http._merging import Merging, Written, line_of
from warmline_http._talk import Message, Talk, regular

CALL = {"type": "tool_use", "id": "t", "name": "n", "input": {"b": 1, "a": 2}}


def text(said: str) -> dict[str, Any]:
    """A block of text."""
    return {"type": "text", "text": said}


def talk(*messages: Message, model: str = "haiku", kind: str = "messages") -> Talk:
    """A conversation."""
    return Talk(config_pb.SessionConfig(model=model), regular(messages), kind)


def answer(*content: dict[str, Any]) -> Message:
    """What the model said."""
    return Message("assistant", content)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ([text("a"), text("b")], [text("ab")]),
        ([text(" a\n")], [text("a")]),
        ([{"type": "thinking", "thinking": "x", "signature": "y"}, text("a")], [text("a")]),
        ([text("a"), CALL], [CALL, text("a")]),
        ([CALL | {"caller": {"type": "direct"}}], [CALL]),
        ([CALL | {"input": {"a": 2, "b": 1}}], [CALL]),
    ],
)
def test_an_answer_may_be_repeated_in_another_way(one: list[Any], other: list[Any]) -> None:
    """What formats and callers do to it makes no other conversation of it."""
    assert answer(*one).digest == answer(*other).digest


@pytest.mark.parametrize(
    "other", [CALL | {"id": "u"}, CALL | {"name": "m"}, CALL | {"input": {}}, text("t"), text("a ")]
)
def test_another_answer_is_another_one(other: dict[str, Any]) -> None:
    """Every word and every call counts."""
    assert answer(other).digest != answer(CALL).digest


def test_a_name_says_all_that_was_said_and_set_up() -> None:
    """Who speaks, in which order, with what, and of which kind."""
    said = Message("user", (text("a"),)), answer(text("b"))
    turned = Message("user", (text("b"),)), answer(text("a"))
    names = {
        talk(*said).name(said),
        talk(*said).name(said[:1]),
        talk(*said).name(turned),
        talk(*said, model="opus").name(said),
        talk(*said, kind="other").name(said),
    }
    assert len(names) == 5
    assert talk(*said).name(said) in names


def test_what_one_side_says_in_a_row_is_one_message() -> None:
    """As the API takes it; empty texts are left out."""
    messages = [Message("user", (text("a"),)), Message("user", (text(" "), text("b")))]
    assert regular([*messages, answer(text(""))]) == (Message("user", (text("a"), text("b"))),)


class Merged:
    """What is told of these lines."""

    def __init__(self, *events: dict[str, Any], parent: str | None = None) -> None:
        self.written = Written()
        merging = Merging(self.written, formed=False)
        self.steps: list[Any] = []
        for event in events:
            line = json.dumps({"event": event, "parent_tool_use_id": parent})
            self.steps += merging.take(line_of(line))
        self.asks = merging.asks
        self.steps += merging.end()


def message(number: int, *blocks: dict[str, Any], stop: str) -> list[dict[str, Any]]:
    """The events of a message: each block whole."""
    head = {"id": f"m{number}", "model": "x", "usage": {"input_tokens": 10, "output_tokens": 1}}
    events: list[dict[str, Any]] = [{"type": "message_start", "message": head}]
    for index, block in enumerate(blocks):
        events.append({"type": "content_block_start", "index": index, "content_block": block})
        events.append({"type": "content_block_stop", "index": index})
    delta = {"stop_reason": stop, "stop_sequence": None}
    return [
        *events,
        {"type": "message_delta", "delta": delta, "usage": {"output_tokens": 5}},
        {"type": "message_stop"},
    ]


def test_a_turn_of_several_messages_is_told_as_one() -> None:
    """Calls of the CLI's own tools are left out, indices go on, and what was used is summed up."""
    own = {"type": "tool_use", "id": "t", "name": "Bash", "input": {}}
    merged = Merged(
        *message(1, text("a"), own, stop="tool_use"), *message(2, text("b"), stop="end_turn")
    )
    kinds = [step["type"] for step in merged.steps]
    assert kinds.count("message_start") == kinds.count("message_stop") == 1
    starts = [step for step in merged.steps if step["type"] == "content_block_start"]
    assert [(each["index"], each["content_block"]["text"]) for each in starts] == [
        (0, "a"),
        (1, "b"),
    ]
    assert (merged.written.id, merged.written.stop_reason) == ("m1", "end_turn")
    assert merged.written.usage == {"input_tokens": 20, "output_tokens": 10}
    assert not merged.asks


def test_a_call_of_the_callers_tool_ends_the_answer() -> None:
    """Under the name that the caller gave it."""
    call = {"type": "tool_use", "id": "t", "name": "mcp__client__weather", "input": {}}
    merged = Merged(*message(1, call, stop="tool_use"))
    assert merged.asks
    assert merged.written.content == [call | {"name": "weather"}]


def test_a_sub_agents_words_are_no_part_of_the_answer() -> None:
    """They belong to a call that the caller does not see."""
    merged = Merged(*message(1, text("inner"), stop="end_turn"), parent="t")
    assert [step["type"] for step in merged.steps] == ["message_delta", "message_stop"]


def test_a_call_that_was_cut_has_no_input() -> None:
    """Half of an object is none."""
    events = message(1, CALL | {"name": "mcp__client__n", "input": {}}, stop="max_tokens")
    delta = {"type": "input_json_delta", "partial_json": '{"a": '}
    events.insert(2, {"type": "content_block_delta", "index": 0, "delta": delta})
    assert Merged(*events).written.content[0]["input"] == {}
