"""A transcript that a caller brings: built anew from what is allowed, so that nothing else gets in."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta, Struct

from warmline_service.errors import WarmlineError, field_invalid
from warmline_service.worker._blocks import FromModel, FromUser, ToolUseBlock
from warmline_service.worker._transcript import COMPACTION, EARLIER, NO_TIME

MAX_ENTRIES = 50_000
MAX_BYTES = 32 * 1024 * 1024

_Uuid = Annotated[str, Meta(pattern=r"^[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}\Z")]
_Time = Annotated[str, Meta(pattern=r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{1,9})?Z\Z")]
_Short = Annotated[str, Meta(max_length=256)]
_Count = Annotated[int, Meta(ge=0, le=2**53)]

# What the CLI takes for the size of the context: its own count comes with the first answer.
_NOTHING_USED = {"input_tokens": 0, "output_tokens": 0}


class _Head(Struct, rename="camel"):
    type: str
    subtype: str = ""
    is_sidechain: bool = False
    is_api_error_message: bool = False


class _Link(Struct, rename="camel", omit_defaults=True):
    uuid: _Uuid
    parent_uuid: _Uuid | None = None
    timestamp: _Time = NO_TIME
    is_meta: bool = False
    is_compact_summary: bool = False


class _UserBody(Struct):
    role: Literal["user"]
    content: str | list[FromUser]


class _AssistantBody(Struct, omit_defaults=True):
    role: Literal["assistant"]
    content: list[FromModel]
    id: _Short = ""
    model: _Short = ""
    stop_reason: _Short | None = None


class _User(_Link, kw_only=True):
    message: _UserBody


class _Assistant(_Link, kw_only=True):
    message: _AssistantBody


class _Segment(Struct, rename="camel"):
    head_uuid: _Uuid
    anchor_uuid: _Uuid
    tail_uuid: _Uuid


class _Kept(Struct, rename="camel"):
    anchor_uuid: _Uuid
    uuids: list[_Uuid] = []
    all_uuids: list[_Uuid] = []


class _Compaction(Struct, rename="camel", omit_defaults=True):
    trigger: Literal["manual", "auto"] = "auto"
    pre_tokens: _Count = 0
    preserved_segment: _Segment | None = None
    preserved_messages: _Kept | None = None


class _Boundary(_Link):
    compact_metadata: _Compaction = msgspec.field(default_factory=_Compaction)


_heads = msgspec.json.Decoder(_Head)
_users = msgspec.json.Decoder(_User)
_assistants = msgspec.json.Decoder(_Assistant)
_boundaries = msgspec.json.Decoder(_Boundary)


def imported(
    lines: Iterable[bytes], field: str = "entries", own: Collection[str] = ()
) -> list[bytes]:
    """The conversation in a transcript of unknown origin, as lines like those of `lasting`.

    Only messages and compactions come through, with the fields and kinds of block that they may have:
    no attachments, hooks, permissions, directories, tool metadata or system prompt, and calls of no
    tool that the CLI has: of those in `own`, or of an earlier time. `field` is the path of the lines in
    the request. Raises FIELD_INVALID.
    """
    found: list[bytes] = []
    size = 0
    for index, line in enumerate(lines):
        size += len(line)
        if index >= MAX_ENTRIES or size > MAX_BYTES:
            limit = f"at most {MAX_ENTRIES} entries and {MAX_BYTES} bytes"
            raise field_invalid(field, f"too large: {limit}")
        entry = _checked(line, f"{field}[{index}]", own)
        if entry is not None:
            found.append(msgspec.json.encode(entry))
    if not found:
        raise field_invalid(field, "holds no message")
    return found


def _checked(line: bytes, field: str, own: Collection[str]) -> dict[str, Any] | None:
    try:
        return _rebuilt(line, own)
    except (msgspec.MsgspecError, UnicodeError, RecursionError) as error:
        raise _refused(field, error) from None


def _refused(field: str, error: Exception) -> WarmlineError:
    what = "nested too deeply" if isinstance(error, RecursionError) else str(error)
    return field_invalid(field, f"not an entry of a transcript: {what[:200]}")


def _rebuilt(line: bytes, own: Collection[str]) -> dict[str, Any] | None:
    head = _heads.decode(line)
    if head.is_sidechain or head.is_api_error_message:
        return None
    if head.type == "user":
        return _entry(_users.decode(line), type="user", userType="external")
    if head.type == "assistant":
        assistant = _assistants.decode(line)
        _rename_tools(assistant.message.content, own)
        entry = _entry(assistant, type="assistant", userType="external")
        whole = {"id": "", "model": "", "type": "message", "usage": _NOTHING_USED}
        entry["message"] = whole | {"stop_reason": None, "stop_sequence": None} | entry["message"]
        return entry
    if head.type == "system" and head.subtype == COMPACTION:
        fixed = {"type": "system", "subtype": COMPACTION, "content": "Conversation compacted"}
        return _entry(_boundaries.decode(line), level="info", **fixed)
    return None


def _rename_tools(blocks: list[FromModel], own: Collection[str]) -> None:
    """Make calls those of tools that the CLI does not have.

    It looks after files that its own tools read or wrote: it would read whatever a call names, without
    asking anybody, and show the model what has changed.
    """
    for block in blocks:
        if not isinstance(block, ToolUseBlock) or block.name in own:
            continue
        if not block.name.startswith(EARLIER):
            block.name = EARLIER + block.name[: 128 - len(EARLIER)]


def _entry(known: _Link, **fixed: str) -> dict[str, Any]:
    """An entry with the fields that every one has; what a text holds that is no text raises here."""
    built: dict[str, Any] = {"parentUuid": None, "isSidechain": False, "timestamp": NO_TIME}
    built |= msgspec.to_builtins(known)
    if isinstance(known, _Boundary):
        built["parentUuid"] = None
    return built | fixed
