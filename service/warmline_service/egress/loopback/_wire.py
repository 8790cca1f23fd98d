"""The wire format of the Messages API's answers: frames of a stream, or one JSON object."""

from __future__ import annotations

import uuid
from typing import Any

import msgspec

from warmline_service.egress._meter import Tokens

_encode = msgspec.json.encode


def new_id(prefix: str) -> str:
    """An id as the API makes them, such as `msg_…`."""
    return f"{prefix}_{uuid.uuid4().hex[:24]}"


def usage(tokens: Tokens) -> dict[str, int]:
    """Tokens in the API's words."""
    return {
        "input_tokens": tokens.input,
        "cache_creation_input_tokens": tokens.cache_creation,
        "cache_read_input_tokens": tokens.cache_read,
        "output_tokens": tokens.output,
    }


def message(model: str, tokens: Tokens, content: list[Any], stop: str | None) -> dict[str, Any]:
    """A message object; `stop` is None while it is not whole."""
    return {
        "id": new_id("msg"),
        "type": "message",
        "role": "assistant",
        "model": model,
        "content": content,
        "stop_reason": stop,
        # The only sequence a script can end at; requests' own sequences are not looked for.
        "stop_sequence": "::stop" if stop == "stop_sequence" else None,
        "usage": usage(tokens),
    }


def frame(type_: str, **fields: object) -> bytes:
    """One event of a stream."""
    return b"event: %b\ndata: %b\n\n" % (type_.encode(), _encode({"type": type_, **fields}))


def start_frame(model: str, tokens: Tokens) -> bytes:
    """The first event."""
    return frame("message_start", message=message(model, tokens, [], None))


def end_frames(stop: str, tokens: Tokens) -> bytes:
    """The last two events."""
    delta = {"stop_reason": stop, "stop_sequence": "::stop" if stop == "stop_sequence" else None}
    return frame("message_delta", delta=delta, usage=usage(tokens)) + frame("message_stop")


class DeltaFrames:
    """Makes the deltas of one block: only the text differs, so only that is encoded."""

    def __init__(self, index: int, type_: str, field: str) -> None:
        self._head = (
            b'event: content_block_delta\ndata: {"type":"content_block_delta","index":%d,'
            b'"delta":{"type":"%b","%b":' % (index, type_.encode(), field.encode())
        )

    def of(self, text: str) -> bytes:
        """The frame for one more piece of text."""
        return self._head + _encode(text) + b"}}\n\n"
