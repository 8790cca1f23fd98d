"""Messages of the API as JSON, and back: protobuf's own mapping."""

from __future__ import annotations

import asyncio
from typing import TypeVar

from google.protobuf.json_format import MessageToJson, ParseDict, ParseError
from google.protobuf.message import EncodeError, Message

M = TypeVar("M", bound=Message)

# What takes longer than a moment is done beside the loop.
_LARGE = 32 * 1024
_SHOWN = 500


async def json_of(message: Message) -> str:
    """A message as JSON on one line."""
    if message.ByteSize() < _LARGE:
        return _json_of(message)
    return await asyncio.to_thread(_json_of, message)


def filled(message: M, value: object) -> M:
    """The message, with what a JSON value says. Raises ValueError, whose text may be shown."""
    if not isinstance(value, dict):
        raise ValueError("must be a JSON object")  # noqa: TRY004  # a value, to whoever sent it
    try:
        ParseDict(value, message)
        # Text that is no Unicode, or that is nested too deeply, is seen only now.
        message.SerializeToString()
    except RecursionError:
        raise ValueError("is nested too deeply") from None
    except (ParseError, EncodeError, ValueError, TypeError) as error:
        raise ValueError(str(error)[:_SHOWN]) from None
    return message


def _json_of(message: Message) -> str:
    return MessageToJson(message, indent=None)
