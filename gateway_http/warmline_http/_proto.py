"""Messages of the API as JSON, and back: protobuf's own mapping, with the names of the proto files."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from typing import Annotated, Any, TypeVar

from google.protobuf.json_format import MessageToDict, MessageToJson, ParseDict, ParseError
from google.protobuf.message import EncodeError, Message
from pydantic import AfterValidator, AwareDatetime
from starlette.responses import Response

M = TypeVar("M", bound=Message)

# What takes longer than a moment to write is written beside the loop.
_LARGE = 16 * 1024
# Of what is wrong with a value.
_SHOWN = 500
_FIRST, _LAST = datetime(1970, 1, 1, tzinfo=UTC), datetime(9999, 12, 31, tzinfo=UTC)
INT32, UINT64 = 2**31 - 1, 2**64 - 1

_OWN_FAILURE = {
    "type": "object",
    "required": ["error"],
    "properties": {
        "error": {
            "type": "object",
            "required": ["status", "reason", "message", "request_id"],
            "properties": {
                "status": {"type": "integer"},
                "reason": {"type": "string", "description": "What to branch on: docs/errors.md."},
                "message": {"type": "string"},
                "fields": {"type": "object", "additionalProperties": {"type": "string"}},
                "metadata": {"type": "object", "additionalProperties": {"type": "string"}},
                "retry_after": {"type": "number"},
                "request_id": {"type": "string"},
            },
        }
    },
}
# For the API's page: how every route of ours tells that it failed.
FAILURES: dict[int | str, dict[str, Any]] = {
    "default": {
        "description": "It failed: `reason` says why, `fields` what is wrong with which.",
        "content": {"application/json": {"schema": _OWN_FAILURE}},
    }
}


def _representable(moment: datetime) -> datetime:
    if not _FIRST <= moment <= _LAST:
        raise ValueError("must be from 1970 to 9999")
    return moment


def _unicode(text: str) -> str:
    try:
        text.encode()
    except UnicodeEncodeError:
        raise ValueError("is no Unicode: JSON can escape half a character") from None
    return text


Moment = Annotated[AwareDatetime, AfterValidator(_representable)]
# A field of a body that becomes a string of a message.
Text = Annotated[str, AfterValidator(_unicode)]


def told(kind: type[Message], more: str = "") -> dict[int | str, dict[str, Any]]:
    """For the API's page: what a route answers."""
    text = f"`{kind.DESCRIPTOR.full_name}` as protobuf JSON{more}."
    return {
        200: {"description": text, "content": {"application/json": {"schema": {"type": "object"}}}}
    }


async def answer(message: Message) -> Response:
    """A message as the whole of an answer."""
    if message.ByteSize() < _LARGE:
        text = _text(message)
    else:
        text = await asyncio.to_thread(_text, message)
    return Response(text, media_type="application/json")


def dict_of(message: Message) -> dict[str, Any]:
    """A message as what JSON has; 64-bit numbers are strings."""
    return MessageToDict(message, preserving_proto_field_name=True)


def filled(message: M, value: object, *, ignore_unknown_fields: bool = False) -> M:
    """The message, with what a JSON value says. Raises ValueError, whose text may be shown."""
    if not isinstance(value, dict):
        raise ValueError("must be a JSON object")  # noqa: TRY004  # a value, to whoever sent it
    try:
        ParseDict(value, message, ignore_unknown_fields=ignore_unknown_fields)
        # Text that is no Unicode, or that is nested too deeply, is seen only now.
        message.SerializeToString()
    except RecursionError:
        raise ValueError("is nested too deeply") from None
    except (UnicodeEncodeError, SystemError):
        # By the second protobuf says that it cannot look up a name.
        raise ValueError("holds what is no Unicode") from None
    except (ParseError, EncodeError, ValueError, TypeError, OverflowError) as error:
        # It may quote what is no Unicode.
        text = str(error)[:_SHOWN].encode(errors="replace").decode()
        raise ValueError(text) from None
    return message


def _text(message: Message) -> str:
    return MessageToJson(message, preserving_proto_field_name=True, indent=None)
