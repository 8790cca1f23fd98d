"""A Messages request as the loopback model reads it: what it needs, the rest kept raw."""

from __future__ import annotations

import msgspec

_REMINDER = "<system-reminder>"


class Block(msgspec.Struct):
    """A content block: what it says, or what a tool gave back."""

    type: str = ""
    text: str = ""
    content: msgspec.Raw = msgspec.Raw(b'""')


class Message(msgspec.Struct):
    """A message of the conversation."""

    role: str
    content: str | list[Block] = ""

    @property
    def said(self) -> str | None:
        """What a person wrote last in it; None for tool results and the like.

        What the CLI adds are blocks of their own. One that was interrupted unanswered may share its
        message with the next: the last counts.
        """
        if self.role != "user":
            return None
        if isinstance(self.content, str):
            return None if self.content.startswith(_REMINDER) else self.content
        texts = [block.text for block in self.content if block.type == "text"]
        own = [text for text in texts if not text.lstrip().startswith(_REMINDER)]
        return own[-1] if own else None

    @property
    def tool_result(self) -> str | None:
        """The text of the last tool result in it, None where there is none."""
        if isinstance(self.content, str):
            return None
        results = [block.content for block in self.content if block.type == "tool_result"]
        return _text(results[-1]) if results else None


class MessagesRequest(msgspec.Struct):
    """The body of a request."""

    messages: list[msgspec.Raw]
    model: str = "loopback"
    stream: bool = False
    max_tokens: int | None = None
    system: msgspec.Raw = msgspec.Raw(b"null")
    tools: msgspec.Raw = msgspec.Raw(b"null")


class BadRequestError(Exception):
    """A body that is not a Messages request; the text says what is wrong with it."""


class Conversation:
    """A request and where its conversation is.

    `said` is the last thing a person wrote, `number` counts what people wrote, `answered` counts
    the model's answers since then.
    """

    def __init__(self, body: bytes) -> None:
        try:
            self.request = msgspec.json.decode(body, type=MessagesRequest)
            self.messages = [
                msgspec.json.decode(raw, type=Message) for raw in self.request.messages
            ]
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise BadRequestError(f"The request body is not a Messages request: {error}") from None
        self.body = body
        spoken = [index for index, message in enumerate(self.messages) if message.said is not None]
        last = spoken[-1] if spoken else 0
        self.number = len(spoken)
        self.said = (self.messages[last].said or "") if spoken else ""
        self.answered = sum(message.role == "assistant" for message in self.messages[last:])

    @property
    def tool_result(self) -> str:
        """The text of the last tool result."""
        found = (message.tool_result for message in reversed(self.messages))
        return next((text for text in found if text is not None), "")

    def part(self, what: str) -> str:
        """A part of the request as JSON: `system`, `messages`, `model`, `tools`, or all of it."""
        if what == "request":
            return self.body.decode(errors="replace")
        return msgspec.json.encode(getattr(self.request, what)).decode(errors="replace")


def _text(content: msgspec.Raw) -> str:
    try:
        value = msgspec.json.decode(content, type=str | list[Block])
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return ""
    return value if isinstance(value, str) else "\n".join(block.text for block in value)
