"""Turns through the service, timed by its client."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

from warmline.v1 import events_pb2 as pb
from warmline_client import Client, Conversation

_TIMEOUT = 60.0


@dataclass(frozen=True)
class Timed:
    """One turn: seconds to the first text, counted from the opening where it is a first turn."""

    first_text: float
    whole: float
    deltas: int
    receipt: pb.LatencyReceipt

    @property
    def start(self) -> str:
        """How the process was had: HOT, WARM or COLD."""
        return pb.StartKind.Name(self.receipt.start).removeprefix("START_KIND_")


async def turn(conversation: Conversation, text: str, begun: float | None = None) -> Timed:
    """Say something; raises RuntimeError where the turn fails."""
    begun = time.perf_counter() if begun is None else begun
    first, deltas = 0.0, 0
    async with asyncio.timeout(_TIMEOUT):
        async for event in await conversation.send(text):
            kind = event.WhichOneof("kind")
            if kind == "text_delta":
                first = first or time.perf_counter() - begun
                deltas += 1
            elif kind == "turn_failed":
                raise RuntimeError(f"a turn failed: {event.turn_failed.status.message}")
            elif kind == "turn_completed":
                whole = time.perf_counter() - begun
                return Timed(first, whole, deltas, event.turn_completed.latency)
    raise RuntimeError("the stream ended before its turn")


@asynccontextmanager
async def first_turn(
    client: Client, text: str, *, model: str = "", append_system: str = ""
) -> AsyncIterator[tuple[Conversation, Timed]]:
    """A new session and its first turn, timed from before the stream is opened."""
    begun = time.perf_counter()
    async with client.chat(model=model, append_system=append_system) as conversation:
        yield conversation, await turn(conversation, text, begun)
