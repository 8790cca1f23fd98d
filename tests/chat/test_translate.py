"""Lines of the CLI become events; none of them, whatever it holds, breaks a turn."""

import json
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from warmline.v1 import events_pb2 as pb
from warmline_service.chat._translate import Translator, begins_turn, result_of
from warmline_service.rpc._wire import fill_event
from warmline_service.sessions import events
from warmline_service.worker import decode

JSON: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3)
    ),
    max_leaves=8,
)
TYPES = [
    "assistant",
    "user",
    "system",
    "stream_event",
    "result",
    "rate_limit_event",
    "new",
    "",
    None,
]
SUBTYPES = [
    "init",
    "api_retry",
    "model_fallback",
    "compact_boundary",
    "status",
    "task_started",
    "task_progress",
    "task_updated",
    "task_notification",
    "other",
]
NUMBERS = st.integers() | st.floats(allow_nan=False, allow_infinity=False)
USAGE = st.dictionaries(
    st.sampled_from(["total_tokens", "tool_uses", "duration_ms"]), NUMBERS, max_size=3
)


def bodies(*lines: dict[str, Any]) -> list[tuple[str, events.Body]]:
    """What a turn of these lines tells."""
    translator = Translator()
    told = [
        each for line in lines for each in translator.translate(decode(json.dumps(line).encode()))
    ]
    return told + list(translator.flush())


@given(
    st.lists(
        st.fixed_dictionaries(
            {"type": st.sampled_from(TYPES)},
            optional={
                "subtype": st.sampled_from(SUBTYPES),
                "message": JSON,
                "event": JSON,
                "content": JSON,
                "parent_tool_use_id": JSON,
                "task_id": st.sampled_from(["a", "b"]),
                "task_type": st.just("local_agent"),
                "usage": USAGE | JSON,
            },
        ),
        max_size=5,
    )
)
def test_no_line_raises(lines: list[dict[str, Any]]) -> None:
    """Any JSON under any type gives events or none, which can be sent."""
    for parent, body in bodies(*lines):
        assert isinstance(body, events.Body)
        fill_event(pb.Event(), events.Event("s", "t", 1, 1, 0.0, body, parent))
    for line in lines:
        message = decode(json.dumps(line).encode())
        begins_turn(message, "x")
        result_of(message, "x")


@given(st.lists(JSON, max_size=4))
def test_no_content_raises(content: list[Any]) -> None:
    """Blocks of any shape become blocks or are left out."""
    for kind in ("assistant", "user"):
        bodies({"type": kind, "message": {"id": "m", "model": "x", "content": content}})


def test_a_line_of_an_unknown_type_passes_as_it_was() -> None:
    """A later CLI's new kind of line reaches the caller whole."""
    line = {"type": "brand_new", "value": {"a": 1}}
    [(_, body)] = bodies(line)
    assert isinstance(body, events.Raw)
    assert (body.type, json.loads(body.json)) == ("brand_new", line)


def assistant(identifier: str, block: dict[str, Any], parent: str | None = None) -> dict[str, Any]:
    """A line with one block of a message."""
    message = {"id": identifier, "model": "claude", "content": [block]}
    return {"type": "assistant", "message": message, "parent_tool_use_id": parent}


def test_the_blocks_of_one_message_come_as_one() -> None:
    """The CLI tells each block by itself; callers get the message when it is whole."""
    text = {"type": "text", "text": "a"}
    call = {"type": "tool_use", "id": "t", "name": "Bash", "input": {"command": "ls"}}
    told = bodies(assistant("m1", text), assistant("m1", call), assistant("m2", text))
    messages = [body for _, body in told if isinstance(body, events.Message)]
    assert [len(message.content) for message in messages] == [2, 1]
    assert [type(body).__name__ for _, body in told] == ["ToolCall", "Message", "Message"]


def test_sub_agents_are_told_apart() -> None:
    """What a sub-agent does carries the tool call that it runs in, and mixes with nothing."""
    text = {"type": "text", "text": "a"}
    told = bodies(assistant("m1", text), assistant("m9", text, "tool-1"), assistant("m1", text))
    assert sorted(
        (parent, len(body.content)) for parent, body in told if isinstance(body, events.Message)
    ) == [
        ("", 2),
        ("tool-1", 1),
    ]


def test_a_sub_agents_message_comes_before_what_it_gave() -> None:
    """Its last one is whole when its call has a result."""
    text = {"type": "text", "text": "a"}
    result = {"type": "tool_result", "tool_use_id": "tool-1", "content": "a"}
    told = bodies(
        assistant("m9", text, "tool-1"), {"type": "user", "message": {"content": [result]}}
    )
    assert [(parent, type(body).__name__) for parent, body in told] == [
        ("tool-1", "Message"),
        ("", "ToolResult"),
    ]


def test_the_clis_own_words_are_no_answer() -> None:
    """A synthetic message, such as the text of an API error, is not the model's."""
    line = assistant("m", {"type": "text", "text": "API Error"})
    line["message"]["model"] = "<synthetic>"
    assert bodies(line) == []


def task(subtype: str, **fields: Any) -> dict[str, Any]:
    """A line about a task."""
    return {"type": "system", "subtype": subtype, "task_id": "t", "tool_use_id": "agent"} | fields


def test_a_sub_agents_way_is_told_and_its_words_before_its_end() -> None:
    """Where it stands, with what it took; inside another one it belongs to that one's call."""
    call = {"type": "tool_use", "id": "agent", "name": "Agent", "input": {}}
    usage = {"total_tokens": 10, "tool_uses": 2, "duration_ms": 1500}
    told = bodies(
        assistant("m1", call, parent="outer"),
        task("task_started", task_type="local_agent", subagent_type="looker", description="look"),
        task("task_progress", description="Running ls", last_tool_name="Bash"),
        assistant("m2", {"type": "text", "text": "seen"}, parent="agent"),
        task("task_updated", patch={"status": "completed"}),
        task("task_notification", status="completed", summary="seen", usage=usage),
        task("task_progress", description="late"),
    )
    way = [(parent, body) for parent, body in told if isinstance(body, events.AgentEvent)]
    state, event = events.AgentState, events.AgentEvent
    assert way == [
        ("outer", event("agent", "looker", state.STARTED, "look")),
        ("outer", event("agent", "looker", state.WORKING, "Running ls", "Bash")),
        ("outer", event("agent", "looker", state.COMPLETED, "seen", "", 2, 10, 1.5)),
    ]
    kinds = [events.kind_of(body) for _, body in told]
    assert kinds == [
        "tool_call",
        *("agent_event", "agent_event"),
        *("message", "agent_event"),
        "raw",
        "message",
    ]


def test_a_task_that_is_no_sub_agents_passes_as_it_was() -> None:
    """A command in the background, for one."""
    told = bodies(task("task_started", task_type="local_bash"), task("task_updated"))
    assert [events.kind_of(body) for _, body in told] == ["raw", "raw"]
