"""What the operators' commands have in common: who they are, and how they write things down."""

from __future__ import annotations

import os
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Annotated

import typer
from google.protobuf import json_format
from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp

from warmline_client._admin import AdminCalls
from warmline_client._client import connect
from warmline_client.terminal._run import fail

_KEY_VARIABLE = "WARMLINE_API_KEY"
_UNITS = {"s": 1, "min": 60, "h": 3600, "d": 86400}
_SPAN = re.compile(r"(\d{1,9})\s*(s|min|h|d)")

KeyFile = Annotated[
    Path | None,
    typer.Option(
        "--key-file",
        metavar="PATH",
        help=f"A file with an API key that has the scope `admin`. Otherwise: {_KEY_VARIABLE}.",
    ),
]
Json = Annotated[bool, typer.Option("--json", help="One JSON object a line, for scripts.")]


@asynccontextmanager
async def operating(
    target: str, key_file: Path | None, *, tls: bool, ca: Path | None
) -> AsyncIterator[AdminCalls]:
    """A connection with an operator's key, which is never taken from the command line."""
    key = _read(key_file) if key_file is not None else os.environ.get(_KEY_VARIABLE, "")
    async with connect(target, api_key=key.strip() or None, tls=tls, ca_file=ca) as client:
        yield client.admin


def span_of(text: str) -> timedelta:
    """A span such as `90d`, `12h`, `30min`, `45s`; raises what Typer shows as a usage error."""
    found = _SPAN.fullmatch(text.strip())
    if found is None:
        raise typer.BadParameter("must be a span such as 90d, 12h, 30min or 45s")
    return timedelta(seconds=int(found.group(1)) * _UNITS[found.group(2)])


def moment_of(text: str) -> datetime:
    """A moment: a span from now, or a date and time such as `2030-01-31T12:00Z`; without a zone UTC."""
    if _SPAN.fullmatch(text.strip()):
        try:
            return datetime.now(UTC) + span_of(text)
        except OverflowError:
            raise typer.BadParameter("is beyond the year 9999") from None
    try:
        return datetime.fromisoformat(text)
    except ValueError:
        raise typer.BadParameter(
            "must be a span such as 90d, or a moment such as 2030-01-31T12:00Z"
        ) from None


def when(moment: Timestamp) -> str:
    """A moment for a table; empty where it is not set."""
    seconds = moment.ToNanoseconds() / 1e9
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%MZ") if seconds else ""


def as_json(message: Message) -> str:
    """On one line."""
    return json_format.MessageToJson(
        message, indent=None, always_print_fields_with_no_presence=True, ensure_ascii=False
    )


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="ascii")
    except (OSError, ValueError) as error:
        fail(f"The key cannot be read: {error}")
