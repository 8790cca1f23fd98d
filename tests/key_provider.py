"""A provider of models that looks at the key of each request."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Collection
from contextlib import asynccontextmanager

from aiohttp import web
from warmline_service.egress import LoopbackModel


class Provider:
    """The loopback model behind a check of keys; `seen` are the keys of its requests, in order."""

    def __init__(self, known: Collection[str]) -> None:
        self.seen: list[str] = []
        self.asked = asyncio.Event()
        self.url = ""
        self._known = known
        self._model = LoopbackModel()

    async def _handle(self, request: web.BaseRequest) -> web.StreamResponse:
        """Answer who has a key that is known."""
        key = request.headers.get("x-api-key", "") or request.headers.get("authorization", "")
        self.seen.append(key)
        self.asked.set()
        if key.removeprefix("Bearer ") not in self._known:
            error = {"type": "authentication_error", "message": f"no such key: {key}"}
            return web.json_response({"type": "error", "error": error}, status=401)
        return await self._model.handle(request)

    @asynccontextmanager
    async def serving(self) -> AsyncIterator[None]:
        """While it is up."""
        server = web.Server(self._handle, access_log=None, handler_cancellation=True)
        runner = web.ServerRunner(server, shutdown_timeout=0.5)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        self.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
        yield
        await runner.cleanup()
