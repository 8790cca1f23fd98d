"""The CLI behind claude-agent-sdk's own client, kept open."""

from __future__ import annotations

import asyncio
import time
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from claude_agent_sdk import ClaudeAgentOptions, ClaudeSDKClient, ResultMessage, StreamEvent
from warmline_service.worker import Slot
from warmline_service.worker._slots import make, wipe

from bench.pipes import environment

_TIMEOUT = 60.0


class SdkSession:
    """An open client of the SDK."""

    def __init__(self, client: ClaudeSDKClient) -> None:
        self._client = client

    async def turn(self, text: str) -> float:
        """Say something; the seconds from then to the first text of the answer."""
        begun = time.perf_counter()
        first: float | None = None
        async with asyncio.timeout(_TIMEOUT):
            await self._client.query(text)
            async for message in self._client.receive_response():
                if first is None and isinstance(message, StreamEvent) and _is_text(message):
                    first = time.perf_counter() - begun
                if isinstance(message, ResultMessage) and message.is_error:
                    raise RuntimeError(f"the turn failed: {message.result}")
        if first is None:
            raise RuntimeError("the turn ended without a text")
        return first


def _is_text(message: StreamEvent) -> bool:
    delta = message.event.get("delta")
    return isinstance(delta, dict) and delta.get("type") == "text_delta"


@asynccontextmanager
async def sdk_session(home: Path, binary: Path, model: Path) -> AsyncIterator[SdkSession]:
    """A connected client whose CLI has the environment that the others have.

    The SDK adds the caller's own variables, of which there must be none that matter.
    """
    identifier = uuid.uuid4().hex[:12]
    slot = Slot(identifier, home / identifier)
    await asyncio.to_thread(make, slot)
    client = ClaudeSDKClient(
        ClaudeAgentOptions(
            cli_path=binary,
            cwd=slot.work,
            env=environment(slot, model),
            setting_sources=[],
            strict_mcp_config=True,
            include_partial_messages=True,
            system_prompt={"type": "preset", "preset": "claude_code"},
            stderr=lambda _: None,
        )
    )
    try:
        await client.connect()
        yield SdkSession(client)
    finally:
        await client.disconnect()
        await asyncio.to_thread(wipe, slot)
