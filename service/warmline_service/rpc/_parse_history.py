"""A conversation that a caller brings, as entries of a transcript like those of the CLI's own."""

from __future__ import annotations

import uuid
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

import msgspec
from warmline.v1 import chat_service_pb2 as pb

from warmline_service.errors import field_invalid
from warmline_service.rpc._bounds import check_count
from warmline_service.rpc._parse_config import json_of
from warmline_service.sessions import CLIENT_SERVER, Media
from warmline_service.worker import imported

_MESSAGES = 10_000
_BLOCKS = 1000
# As many as a line from the CLI may have.
_INPUT_BYTES = 64 * 1024 * 1024
_ROLES = {pb.HistoryMessage.ROLE_USER: "user", pb.HistoryMessage.ROLE_ASSISTANT: "assistant"}
_KINDS = {
    "user": ("text", "image", "document", "tool_output"),
    "assistant": ("text", "tool_call", "thinking"),
}

Block = Mapping[str, Any]


def history_of(
    messages: Sequence[pb.HistoryMessage], tools: Collection[str], field: str
) -> tuple[bytes, ...]:
    """The entries, checked; `tools` are the names of the session's client tools. Empty for none."""
    check_count(messages, _MESSAGES, field)
    if not messages:
        return ()
    lines, parent, before = [], None, "assistant"
    for index, message in enumerate(messages):
        place = f"{field}[{index}]"
        role = _ROLES.get(message.role)
        if role is None:
            raise field_invalid(f"{place}.role", "must be the user's or the model's")
        if role == before:
            raise field_invalid(f"{place}.role", "the user begins, and both take turns")
        before = role
        own = str(uuid.uuid4())
        content = _content(message.content, role, tools, f"{place}.content")
        line = {"type": role, "uuid": own, "message": {"role": role, "content": content}}
        lines.append(msgspec.json.encode(line | ({"parentUuid": parent} if parent else {})))
        parent = own
    if before != "assistant":
        raise field_invalid(field, "must end with the model's answer; what follows is the message")
    names = frozenset(f"mcp__{CLIENT_SERVER}__{name}" for name in tools)
    return tuple(imported(lines, field, names))


def _content(
    blocks: Sequence[pb.HistoryBlock], role: str, tools: Collection[str], field: str
) -> list[Block]:
    check_count(blocks, _BLOCKS, field)
    content: list[Block] = []
    for index, block in enumerate(blocks):
        place = f"{field}[{index}]"
        kind = block.WhichOneof("kind")
        if kind not in _KINDS[role]:
            known = ", ".join(_KINDS[role])
            raise field_invalid(place, f"a message of this role has {known}, each set")
        content += _block(kind, block, tools, place)
    if not content:
        raise field_invalid(field, "must hold a part that can be told")
    return content


def _block(
    kind: str, block: pb.HistoryBlock, tools: Collection[str], field: str
) -> Iterable[Block]:
    match kind:
        case "text":
            if not block.text.strip():
                raise field_invalid(f"{field}.text", "must not be empty")
            yield {"type": "text", "text": block.text}
        case "image":
            yield _media("image", block.image)
        case "document":
            yield _media("document", block.document)
        case "tool_call":
            call = block.tool_call
            name = f"mcp__{CLIENT_SERVER}__{call.name}" if call.name in tools else call.name
            given = json_of(call.input, _INPUT_BYTES, f"{field}.tool_call.input")
            yield {"type": "tool_use", "id": call.id, "name": name, "input": given}
        case "tool_output":
            yield tool_result(block.tool_output)
        case "thinking" if block.thinking.signature:
            thought = block.thinking
            yield {"type": "thinking", "thinking": thought.text, "signature": thought.signature}


def tool_result(output: pb.ToolOutput) -> Block:
    """What a tool gave back, as the model's API has it."""
    content = [{"type": "text", "text": output.text}] if output.text else []
    return {
        "type": "tool_result",
        "tool_use_id": output.tool_call_id,
        "content": [*content, *(_media("image", each) for each in output.images)],
        "is_error": output.is_error,
    }


def _media(kind: str, media: pb.Media) -> Block:
    return Media(kind, media.media_type, media.data).block
