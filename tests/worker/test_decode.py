"""Every line becomes a message; nothing in it makes decoding raise."""

import json

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from warmline_service.worker import (
    ApiRetry,
    Assistant,
    CliMessage,
    ContentBlockDelta,
    Garbage,
    Result,
    StreamEvent,
    System,
    SystemInit,
    Unknown,
    decode,
    decode_blocks,
)

JSON = st.recursive(
    st.none() | st.booleans() | st.floats() | st.text(st.characters(), max_size=20),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(max_size=10), inner),
    max_leaves=10,
)
TYPES = ["assistant", "user", "result", "system", "stream_event", "control_response", "else"]
FIELDS = ["message", "event", "subtype", "result", "errors", "response", "modelUsage", "usage"]
DELTA = (
    b'{"type":"stream_event","event":{"type":"content_block_delta","index":0,'
    b'"delta":{"type":"text_delta","text":"%s"}},"session_id":"s","parent_tool_use_id":null}'
)


def text_of(message: CliMessage) -> str:
    """The text of a delta."""
    assert isinstance(message, StreamEvent)
    assert isinstance(message.event, ContentBlockDelta)
    return message.event.delta.text


@given(st.binary(max_size=200))
def test_arbitrary_bytes_never_raise(line: bytes) -> None:
    """Whatever the bytes, there is a message and it has the line."""
    assert decode(line).line == line


@given(st.sampled_from(TYPES), st.dictionaries(st.sampled_from(FIELDS), JSON))
def test_known_types_with_strange_fields_never_raise(kind: str, fields: dict[str, object]) -> None:
    """A known type with fields of any shape is at worst Unknown, never Garbage."""
    message = decode(json.dumps({"type": kind, **fields}).encode())
    assert not isinstance(message, Garbage)
    assert message.type == kind


@given(st.text(st.characters(exclude_categories=["Cs"])))
def test_text_comes_through_unchanged(text: str) -> None:
    """A delta's text is what the CLI wrote, in either way of escaping it."""
    for ascii_only in (True, False):
        inner = json.dumps(text, ensure_ascii=ascii_only)[1:-1].encode()
        assert text_of(decode(DELTA % inner)) == text


@pytest.mark.parametrize(
    ("inner", "text"),
    [
        (rb"a\ud83db", "a\ufffdb"),
        (rb"\ude00", "\ufffd"),
        (rb"\ud83d\ude00", "\U0001f600"),
        (rb"\\ud83d", "\\ud83d"),
        (b"bad \xff utf-8", "bad \ufffd utf-8"),
    ],
)
def test_half_characters_become_the_replacement_character(inner: bytes, text: str) -> None:
    """Lone surrogates and bad UTF-8 cost their character, not the message."""
    assert text_of(decode(DELTA % inner)) == text


@pytest.mark.parametrize(
    "line",
    [
        b'{"type":"news","x":1}',
        b'{"type":"news","x":NaN}',
        b'{"type":"news","x":1e999,"y":123456789012345678901234567890}',
        b'{"type":"news","type":"news"}',
    ],
)
def test_an_unknown_type_keeps_its_name_and_line(line: bytes) -> None:
    """What this version does not know passes on as it came."""
    assert decode(line) == Unknown("news", line)


@pytest.mark.parametrize("line", [b"[1]", b"3", b'{"x":1}', b'{"type":7}', b"null"])
def test_json_without_a_type_is_unknown(line: bytes) -> None:
    """JSON of another shape is no reason to end a process."""
    assert decode(line) == Unknown("", line)


@pytest.mark.parametrize("line", [b"Error: no", b'{"type":"result"', b"\x00\xff", b"[" * 100_000])
def test_what_is_no_json_is_garbage(line: bytes) -> None:
    """Text, half a line, noise and an endless nesting are told from messages."""
    assert isinstance(decode(line), Garbage)


def test_system_lines_get_the_struct_of_their_subtype() -> None:
    """A subtype of its own struct is decoded into it, any other into System."""
    assert isinstance(decode(b'{"type":"system","subtype":"init","model":"m"}'), SystemInit)
    retry = decode(b'{"type":"system","subtype":"api_retry","attempt":2,"retry_delay_ms":5.5}')
    assert isinstance(retry, ApiRetry)
    assert (retry.attempt, retry.retry_delay_ms, retry.type) == (2, 5.5, "system")
    other = decode(b'{"type":"system","subtype":"later"}')
    assert type(other) is System
    assert other.subtype == "later"


def test_a_result_knows_how_the_turn_ended() -> None:
    """`failed`, `interrupted` and `covers` say what the caller asks of a result."""
    line = {"type": "result", "subtype": "error_during_execution", "is_error": True}
    line |= {"terminal_reason": "aborted_streaming", "user_message_uuids": ["a", "b"]}
    result = decode(json.dumps(line).encode())
    assert isinstance(result, Result)
    assert (result.failed, result.interrupted) == (True, True)
    assert (result.covers("b"), result.covers("c")) == (True, False)


def test_blocks_are_decoded_when_wanted() -> None:
    """Content is a string or blocks; anything else is no block."""
    content = b'[{"type":"tool_use","id":"t","name":"Bash","input":{"a":"\\ud800"}},{"type":"new"}]'
    message = decode(b'{"type":"assistant","message":{"id":"m","content":%s}}' % content)
    assert isinstance(message, Assistant)
    tool, new = decode_blocks(message.message.content)
    assert (tool.type, tool.name, new.type) == ("tool_use", "Bash", "new")
    assert [block.text for block in decode_blocks(msgspec.Raw(b'"plain"'))] == ["plain"]
    assert decode_blocks(msgspec.Raw(b"7")) == []
