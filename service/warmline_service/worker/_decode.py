"""One line into one message; nothing that a line holds makes it raise."""

from __future__ import annotations

import json
import re

import msgspec
from msgspec import Raw, Struct

from warmline_service.worker._messages import (
    SYSTEM_KINDS,
    CliMessage,
    ContentBlock,
    Garbage,
    KnownMessage,
    System,
    Unknown,
)

# Only a line that nothing else could read is parsed by `json`, which is slow and blocks the loop.
_SLOW_PARSE_LIMIT = 1024 * 1024

# A pair of surrogates, a lone one, or any other escape (so that `\\ud800` is not taken for one).
_ESCAPE = re.compile(
    rb"\\(?:(u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2})|(u[dD][89a-fA-F][0-9a-fA-F]{2})|.)",
    re.DOTALL,
)


class _Head(Struct):
    type: str = ""


_known = msgspec.json.Decoder(KnownMessage)
_systems = {name: msgspec.json.Decoder(kind) for name, kind in SYSTEM_KINDS.items()}
_head = msgspec.json.Decoder(_Head)
_blocks = msgspec.json.Decoder(str | list[ContentBlock])


def decode(line: bytes) -> CliMessage:
    """The message in a line: Unknown where its shape is, Garbage where it is no JSON."""
    try:
        return _decode_known(line, line)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return _recover(line)


def decode_blocks(content: Raw) -> list[ContentBlock]:
    """The blocks of a message's content; a string is one text block, anything else none."""
    for text in (bytes(content), repair(bytes(content))):
        try:
            found = _blocks.decode(text)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
            continue
        return [ContentBlock("text", text=found)] if isinstance(found, str) else found
    return []


def repair(text: bytes) -> bytes:
    """The same JSON with bad UTF-8 and lone surrogates, which no text can carry, as U+FFFD."""
    clean = text.decode("utf-8", "replace").encode()
    return _ESCAPE.sub(lambda found: rb"\ufffd" if found[2] else found[0], clean)


def _decode_known(text: bytes, line: bytes) -> CliMessage:
    message: KnownMessage = _known.decode(text)
    if type(message) is System and message.subtype in _systems:
        message = _systems[message.subtype].decode(text)
    message.line = line
    return message


def _recover(line: bytes) -> CliMessage:
    text = repair(line)
    try:
        return _decode_known(text, line)
    except (msgspec.MsgspecError, RecursionError):
        pass
    try:
        return Unknown(_head.decode(text).type, line)
    except (msgspec.MsgspecError, RecursionError):
        return _recover_slowly(text, line)


def _recover_slowly(text: bytes, line: bytes) -> CliMessage:
    """Tell JSON that msgspec refuses (NaN, an array, a number for a type) from what is none."""
    if len(text) > _SLOW_PARSE_LIMIT:
        return Garbage(line)
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return Garbage(line)
    kind = value.get("type") if isinstance(value, dict) else None
    return Unknown(kind if isinstance(kind, str) else "", line)
