"""Messages of the API as JSON: protobuf's own mapping, with its own names."""

from __future__ import annotations

import asyncio

from google.protobuf.json_format import MessageToJson
from google.protobuf.message import Message

# What takes longer than a moment is done beside the loop.
_LARGE = 32 * 1024


async def json_of(message: Message) -> str:
    """A message as JSON on one line."""
    if message.ByteSize() < _LARGE:
        return _json_of(message)
    return await asyncio.to_thread(_json_of, message)


def _json_of(message: Message) -> str:
    return MessageToJson(message, indent=None)
