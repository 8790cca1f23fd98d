"""A conversation that its caller keeps, in the middle between the wire formats and the service.

A message is a mapping as the Anthropic API has it, made regular: `role` is `user` or `assistant`, both take
turns, and `content` is a list of blocks (`text`, `image`, `document`, `thinking`, `tool_use`, `tool_result`).
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import msgspec
from warmline.v1 import chat_service_pb2 as chat_pb
from warmline.v1 import session_config_pb2 as config_pb

from warmline_http._failure import Failure
from warmline_http._struct import fill

Block = Mapping[str, Any]
# Of a call what every caller has to repeat; an API may tell more of one.
_CALL = ("type", "id", "name", "input")
_ROLES = {
    "user": chat_pb.HistoryMessage.ROLE_USER,
    "assistant": chat_pb.HistoryMessage.ROLE_ASSISTANT,
}
_encode = msgspec.json.Encoder(order="deterministic").encode


@dataclass(frozen=True)
class Message:
    """What one side said."""

    role: str
    content: tuple[Block, ...]

    @property
    def results(self) -> tuple[Block, ...]:
        """The results of tools in it."""
        return tuple(each for each in self.content if each["type"] == "tool_result")

    @cached_property
    def digest(self) -> bytes:
        """Tells it from any other. What callers repeat in another way, or leave out, is no part of it."""
        said = "".join(each["text"] for each in self.content if each["type"] == "text")
        rest = [
            {name: each[name] for name in _CALL} if each["type"] == "tool_use" else each
            for each in self.content
            if each["type"] not in ("text", "thinking")
        ]
        # A call's place among the texts is not kept by every format.
        return hashlib.sha256(_encode([self.role, said.strip(), rest])).digest()


def regular(messages: Iterable[Message]) -> tuple[Message, ...]:
    """The same with what one side says in a row as one message, and without empty texts."""
    merged: list[Message] = []
    for message in messages:
        kept = tuple(
            each for each in message.content if each["type"] != "text" or each["text"].strip()
        )
        if not kept:
            continue
        if merged and merged[-1].role == message.role:
            merged[-1] = Message(message.role, merged[-1].content + kept)
        else:
            merged.append(Message(message.role, kept))
    return tuple(merged)


@dataclass(frozen=True)
class Talk:
    """A conversation up to what the user says now, and how its session is set up.

    `messages` are regular and end with the user. `credential` pays. `whose` tells the caller's own users
    from each other: none finds a conversation of another's. `stays`: a message without any before it goes
    on with the user's last conversation that is set up so. `session_id`: the session is known; what was said
    before is not looked at then.
    """

    config: config_pb.SessionConfig
    messages: tuple[Message, ...]
    kind: str
    credential: config_pb.Credential | None = None
    whose: str = ""
    session_id: str = ""
    key: str = ""
    stays: bool = False

    @property
    def said(self) -> Message:
        """What the user says now."""
        return self.messages[-1]

    @cached_property
    def _before(self) -> bytes:
        setup = self.config.SerializeToString(deterministic=True)
        whose = self.whose.encode("utf-8", "surrogatepass")
        told = b"%s\0%d\0%s%s" % (self.kind.encode(), len(setup), setup, whose)
        return hashlib.sha256(told).digest()

    def name(self, messages: Sequence[Message]) -> str:
        """What the session is found by when so much was said."""
        chain = self._before
        for message in messages:
            chain = hashlib.sha256(chain + message.digest).digest()
        return f"talk-{chain.hex()}"

    def names_after(self, answer: Sequence[Block]) -> list[str]:
        """What it is found by after an answer."""
        names = [self.name((*self.messages, *regular([Message("assistant", tuple(answer))])))]
        return [*names, self.name(())] if self.stays else names

    def opening(self, *, anew: bool = False) -> chat_pb.Open:
        """The `open`; with `anew` a new session begins in any case."""
        if self.session_id:
            return chat_pb.Open(session_id=self.session_id, detail=chat_pb.DETAIL_RAW)
        opening = chat_pb.Open(config=self.config, detail=chat_pb.DETAIL_RAW)
        if self.credential is not None:
            opening.config.credential.CopyFrom(self.credential)
        before = self.messages[:-1]
        for index, message in enumerate(before):
            told = opening.history.add(role=_ROLES[message.role])
            for block in message.content:
                _tell(told.content, block, f"messages[{index}]")
        if (before or self.stays) and not anew:
            opening.continuation = self.name(before)
        return opening

    def frame(self) -> chat_pb.ChatRequest:
        """What the user says now, as a message."""
        message = chat_pb.UserMessage(idempotency_key=self.key)
        ordered = sorted(self.said.content, key=lambda each: each["type"] != "tool_result")
        if len(ordered) == 1 and ordered[0]["type"] == "text":
            message.text = ordered[0]["text"]
        else:
            for block in ordered:
                _tell(message.content, block, "messages[-1]")
        return chat_pb.ChatRequest(message=message)

    def answers(self) -> dict[str, chat_pb.ClientToolResult]:
        """What the caller's tools gave, by the id of the call; what else is said goes with the last."""
        answers: dict[str, chat_pb.ClientToolResult] = {}
        for block in self.said.results:
            output = _output(block, "messages[-1]")
            answers[output.tool_call_id] = chat_pb.ClientToolResult(
                text=output.text, images=output.images, is_error=output.is_error
            )
        rest = [each for each in self.said.content if each["type"] != "tool_result"]
        for block in rest:
            last = answers[next(reversed(answers))]
            if block["type"] == "text":
                last.text = f"{last.text}\n\n{block['text']}" if last.text else block["text"]
            elif block["type"] == "image":
                last.images.append(_media(block, "messages[-1]"))
            else:
                raise Failure.field("messages[-1]", "a document cannot go with a tool's result")
        return answers


def _tell(into: Any, block: Block, field: str) -> None:
    match block["type"]:
        case "text":
            into.add(text=block["text"])
        case "image":
            into.add(image=_media(block, field))
        case "document":
            into.add(document=_media(block, field))
        case "tool_result":
            into.add(tool_output=_output(block, field))
        case "tool_use":
            call = into.add().tool_call
            call.id, call.name = block["id"], block["name"]
            fill(call.input, block["input"], f"{field}.content.input")
        case "thinking":
            thought = into.add().thinking
            thought.text, thought.signature = block["thinking"], block.get("signature", "")


def _output(block: Block, field: str) -> chat_pb.ToolOutput:
    output = chat_pb.ToolOutput(
        tool_call_id=block["tool_use_id"], is_error=bool(block.get("is_error"))
    )
    content = block.get("content") or ""
    if isinstance(content, str):
        output.text = content
        return output
    output.text = "\n".join(each["text"] for each in content if each["type"] == "text")
    output.images.extend(_media(each, field) for each in content if each["type"] == "image")
    return output


def _media(block: Block, field: str) -> chat_pb.Media:
    source = block["source"]
    try:
        data = base64.b64decode(source["data"], validate=True)
    except ValueError:
        raise Failure.field(f"{field}.content.source.data", "is not base64") from None
    return chat_pb.Media(media_type=source["media_type"], data=data)
