"""The raw events of the model's stream, of which we read what we use."""

from __future__ import annotations

from msgspec import Struct


class Usage(Struct):
    """Tokens as the API counts them."""

    input_tokens: int | None = None
    output_tokens: int | None = None
    cache_read_input_tokens: int | None = None
    cache_creation_input_tokens: int | None = None


class MessageHead(Struct):
    """The head of a streamed message."""

    id: str = ""
    model: str = ""
    usage: Usage | None = None


class BlockHead(Struct):
    """How a content block begins; `id` and `name` only where it is a tool's."""

    type: str
    id: str = ""
    name: str = ""
    text: str = ""
    thinking: str = ""


class Delta(Struct):
    """A piece of a content block: the field that belongs to `type` is set."""

    type: str
    text: str = ""
    thinking: str = ""
    partial_json: str = ""


class MessageStart(Struct, tag_field="type", tag="message_start"):
    """A message begins."""

    message: MessageHead


class ContentBlockStart(Struct, tag_field="type", tag="content_block_start"):
    """Block `index` of the message begins."""

    index: int
    content_block: BlockHead


class ContentBlockDelta(Struct, tag_field="type", tag="content_block_delta"):
    """Block `index` grows."""

    index: int
    delta: Delta


class ContentBlockStop(Struct, tag_field="type", tag="content_block_stop"):
    """Block `index` ends."""

    index: int


class MessageEnd(Struct):
    """Why a message ended."""

    stop_reason: str | None = None
    stop_sequence: str | None = None


class MessageDelta(Struct, tag_field="type", tag="message_delta"):
    """The message's end is known."""

    delta: MessageEnd
    usage: Usage | None = None


class MessageStop(Struct, tag_field="type", tag="message_stop"):
    """The message has ended."""


ApiEvent = (
    MessageStart
    | ContentBlockStart
    | ContentBlockDelta
    | ContentBlockStop
    | MessageDelta
    | MessageStop
)
