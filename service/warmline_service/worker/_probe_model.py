"""The model that a probe talks to: it remembers what it was asked and answers one word."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from aiohttp import web

from warmline_service.worker._slot import Slot


@dataclass(frozen=True)
class ModelRequest:
    """What a model request held; `system` and `messages` are JSON text."""

    model: str
    system: str
    messages: str


class ProbeModel:
    """Serves one slot's unix socket."""

    def __init__(self) -> None:
        self.requests: list[ModelRequest] = []

    async def open_endpoint(self, slot: Slot) -> ProbeEndpoint:
        """Listen on the slot's socket."""
        app = web.Application(client_max_size=64 * 1024 * 1024)
        app.router.add_post("/v1/messages", self._answer)
        runner = web.AppRunner(app, access_log=None)
        await runner.setup()
        starting = asyncio.ensure_future(web.UnixSite(runner, str(slot.sock)).start())
        try:
            await asyncio.shield(starting)
        except BaseException:
            # What has begun to listen is known when that is done, and not before.
            await asyncio.wait({starting})
            await runner.cleanup()
            raise
        return ProbeEndpoint(runner, str(slot.sock))

    async def _answer(self, request: web.Request) -> web.Response:
        body = await request.json()
        model = str(body.get("model"))
        asked = ModelRequest(model, json.dumps(body.get("system")), json.dumps(body["messages"]))
        self.requests.append(asked)
        return web.Response(body=_one_word(model), headers={"content-type": "text/event-stream"})


class ProbeEndpoint:
    """The open socket."""

    def __init__(self, runner: web.AppRunner, path: str) -> None:
        self._runner = runner
        self._path = path

    @property
    def env(self) -> Mapping[str, str]:
        """How the CLI finds it."""
        return {
            "ANTHROPIC_UNIX_SOCKET": self._path,
            "ANTHROPIC_BASE_URL": "http://localhost",
            "ANTHROPIC_API_KEY": "placeholder",
        }

    async def aclose(self) -> None:
        """Close it."""
        await self._runner.cleanup()


def _one_word(model: str) -> bytes:
    usage = {"input_tokens": 1, "output_tokens": 1}
    head = {"id": "msg_probe", "type": "message", "role": "assistant", "model": model}
    rest: dict[str, Any] = {
        "content": [],
        "stop_reason": None,
        "stop_sequence": None,
        "usage": usage,
    }
    end = {"stop_reason": "end_turn", "stop_sequence": None}
    return b"".join(
        (
            _event("message_start", message=head | rest),
            _event("content_block_start", index=0, content_block={"type": "text", "text": ""}),
            _event("content_block_delta", index=0, delta={"type": "text_delta", "text": "ok"}),
            _event("content_block_stop", index=0),
            _event("message_delta", delta=end, usage={"output_tokens": 1}),
            _event("message_stop"),
        )
    )


def _event(kind: str, **fields: Any) -> bytes:  # any JSON value
    return f"event: {kind}\ndata: {json.dumps({'type': kind, **fields})}\n\n".encode()
