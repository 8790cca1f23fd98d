"""The real CLI with the loopback model, in tests that look at what the model was sent."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from aiohttp import web
from cli_turns import Ear, begin_with, ended
from warmline_service.egress.loopback import LoopbackModel
from warmline_service.worker import CliProcess, Content, Result, Slot, TranscriptMirror, lasting

PNG = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
IMAGE = {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": PNG}}


class Model:
    """Remembers what it was asked."""

    def __init__(self) -> None:
        self.provider = LoopbackModel(record=True)

    @property
    def asked(self) -> list[dict[str, Any]]:
        """The requests, oldest first."""
        return [json.loads(each.body or b"{}") for each in self.provider.requests]

    def said(self, number: int = -1) -> list[Any]:
        """The conversation in a request, by default the last, without what every process tells."""
        return [
            {"role": each["role"], "content": content}
            for each in self.asked[number]["messages"]
            if each["role"] != "system" and (content := _blocks(each["content"]))
        ]

    async def open_endpoint(self, slot: Slot) -> Endpoint:
        """Listen on the slot's socket."""
        server = web.Server(self.provider.handle, handler_cancellation=True, access_log=None)
        runner = web.ServerRunner(server, shutdown_timeout=0.5)
        await runner.setup()
        await web.UnixSite(runner, str(slot.sock)).start()
        return Endpoint(runner, slot)


class Endpoint:
    """The slot's socket."""

    def __init__(self, runner: web.ServerRunner, slot: Slot) -> None:
        self._runner = runner
        self.env: Mapping[str, str] = {
            "ANTHROPIC_UNIX_SOCKET": str(slot.sock),
            "ANTHROPIC_BASE_URL": "http://localhost",
            "ANTHROPIC_API_KEY": "placeholder",
        }

    async def aclose(self) -> None:
        """Close it."""
        await self._runner.cleanup()


class Talk:
    """A conversation: what its processes told of their transcripts."""

    def __init__(self) -> None:
        self.entries: list[bytes] = []

    async def say(self, process: CliProcess, content: Content) -> Result:
        """One turn, and what it added."""
        ear = await begin_with(process, content)
        end = await ended(ear)
        self.hear(ear)
        assert isinstance(end, Result), end
        return end

    def hear(self, ear: Ear) -> None:
        """Take what an ear heard."""
        for message in ear.messages:
            if isinstance(message, TranscriptMirror):
                self.entries += lasting(message)


def _blocks(content: object) -> list[dict[str, Any]]:
    blocks = content if isinstance(content, list) else [{"type": "text", "text": content}]
    return [
        {name: value for name, value in block.items() if name != "cache_control"}
        for block in blocks
        # Reminders, and notes that name a file of the process.
        if not str(block.get("text")).startswith(
            ("<system-reminder>", "[Image: source", "<local-c", "<command-")
        )
    ]
