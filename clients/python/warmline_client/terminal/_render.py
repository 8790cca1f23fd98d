"""What happens in a turn, as text: the answer on standard output, all else on standard error."""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator
from typing import Any

from google.protobuf.duration_pb2 import Duration
from rich.text import Text
from warmline.v1 import events_pb2 as pb

from warmline_client._errors import WarmlineError
from warmline_client.terminal._options import err


async def print_turn(events: AsyncIterator[pb.Event], *, receipts: bool) -> None:
    """Print one's own turn as it happens; raises WarmlineError where it fails."""
    async for event in events:
        print_event(event, receipts=receipts)
        if event.HasField("turn_failed"):
            raise WarmlineError(event.turn_failed.status)


def print_event(event: pb.Event, *, receipts: bool) -> None:
    """Print one event, if it is one that people want to see."""
    match event.WhichOneof("kind"):
        case "text_delta" if not event.parent_tool_call_id:
            sys.stdout.write(event.text_delta.text)
            sys.stdout.flush()
        case "tool_call":
            err.print(f"tool {event.tool_call.name}", style="cyan", markup=False)
        case "mcp_server_status" if event.mcp_server_status.error:
            status = event.mcp_server_status
            err.print(f"{status.name}: {status.error}", style="yellow", markup=False)
        case "notice":
            err.print(event.notice.message, style="yellow", markup=False)
        case "turn_queued" if event.turn_queued.position:
            err.print(f"waiting behind {event.turn_queued.position}", style="dim")
        case "turn_failed" | "turn_completed":
            print(flush=True)  # noqa: T201  # ends the line of the answer
            if receipts and event.HasField("turn_completed"):
                err.print(receipt(event.turn_completed), style="dim", markup=False)


def receipt(turn: pb.TurnCompleted) -> str:
    """A turn's latency receipt and usage in one line."""
    latency, usage = turn.latency, turn.usage
    parts = [start_of(latency)]
    parts += [
        f"{field.name} {duration.ToNanoseconds() / 1e6:.0f} ms"
        for field, duration in latency.ListFields()
        if isinstance(duration, Duration)
    ]
    if latency.misses:
        parts.append(f"missed: {', '.join(latency.misses)}")
    parts.append(f"{usage.input_tokens} in, {usage.output_tokens} out, ${usage.cost_usd:.4f}")
    return " · ".join(parts)


def start_of(latency: pb.LatencyReceipt) -> str:
    """How a turn's process was had, in one word."""
    return word(pb.StartKind, latency.start, "START_KIND_")


def cell(text: str, length: int) -> Text:
    """The same for a table: not marked up, and what gives way where the terminal is narrow."""
    return Text(plain(text, length), no_wrap=True, overflow="ellipsis")


def word(enum: Any, value: int, prefix: str) -> str:
    """A value of an enum, in one word; one of a later version as its number."""
    try:
        return str(enum.Name(value)).removeprefix(prefix).lower()
    except ValueError:
        return str(value)


def plain(text: str, length: int) -> str:
    """The beginning of a text of unknown origin: one line, and nothing that a terminal would obey."""
    line = " ".join("".join(c if c.isprintable() else " " for c in text[: 4 * length]).split())
    return line if len(line) <= length else line[: length - 1] + "…"
