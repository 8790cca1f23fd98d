"""The content blocks that callers may write, each with the fields that it may have."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta, Struct

from warmline_service.errors import field_invalid

ImageType = Literal["image/png", "image/jpeg", "image/gif", "image/webp"]
Name = Annotated[str, Meta(min_length=1, max_length=256)]
ToolName = Annotated[str, Meta(pattern=r"^[A-Za-z0-9_-]{1,128}\Z")]


class TextBlock(Struct, tag_field="type", tag="text"):
    """Text."""

    text: str


class ImageSource(Struct, tag_field="type", tag="base64"):
    """An image's bytes; never an address, which somebody would have to fetch."""

    media_type: ImageType
    data: str


class ImageBlock(Struct, tag_field="type", tag="image"):
    """An image."""

    source: ImageSource


class PdfSource(Struct, tag_field="type", tag="base64"):
    """A PDF's bytes."""

    media_type: Literal["application/pdf"]
    data: str


class PlainSource(Struct, tag_field="type", tag="text"):
    """A document of plain text."""

    media_type: Literal["text/plain"]
    data: str


class DocumentBlock(Struct, tag_field="type", tag="document", omit_defaults=True):
    """A document."""

    source: PdfSource | PlainSource
    title: str | None = None
    context: str | None = None


class ToolUseBlock(Struct, tag_field="type", tag="tool_use"):
    """A call of a tool."""

    id: Name
    name: ToolName
    input: dict[str, Any]


class ToolResultBlock(Struct, tag_field="type", tag="tool_result"):
    """What a tool answered."""

    tool_use_id: Name
    content: str | list[TextBlock | ImageBlock | DocumentBlock] = ""
    is_error: bool = False


class ThinkingBlock(Struct, tag_field="type", tag="thinking"):
    """What the model thought; only its own signature makes a model take it."""

    thinking: str
    signature: str = ""


class RedactedThinkingBlock(Struct, tag_field="type", tag="redacted_thinking"):
    """The same where the provider shows nobody."""

    data: str


Given = TextBlock | ImageBlock | DocumentBlock
FromUser = Given | ToolResultBlock
FromModel = TextBlock | ToolUseBlock | ThinkingBlock | RedactedThinkingBlock

Content = str | Sequence[Mapping[str, object]]


def check_content(content: Content) -> Content:
    """A message's content again, if it is text or a list of text, image, document and tool result blocks.

    Fields that no such block has are left out. Raises FIELD_INVALID.
    """
    if isinstance(content, str):
        return content
    try:
        blocks = msgspec.convert(content, Annotated[list[FromUser], Meta(min_length=1)])
        return msgspec.to_builtins(blocks)  # type: ignore[no-any-return]  # a list of objects
    except (msgspec.ValidationError, RecursionError) as error:
        raise field_invalid("message.content", f"not content that can be sent: {error}") from None
