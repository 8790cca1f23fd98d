"""An authorization server on this machine that renews tokens, rotates what renews them, and can say no."""

from __future__ import annotations

import asyncio
import json
import secrets
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import parse_qsl

from aiohttp import web
from warmline_service.config import OAuthSettings


class AuthorizationServer:
    """Knows which tokens are good. `asked` is what it was asked; it answers once `open` is set.

    `answer`, where it is set, is what it answers whatever it is asked: a status and a body.
    """

    def __init__(self) -> None:
        self.url = ""
        self.asked: list[dict[str, str]] = []
        self.came = asyncio.Event()
        self.open = asyncio.Event()
        self.open.set()
        self.answer: tuple[int, str] | None = None
        self.access: set[str] = set()
        self.refresh: set[str] = set()
        self.lifetime: float | None = 3600

    def give(self) -> tuple[str, str]:
        """An access token and what renews it."""
        access, refresh = f"sk-ant-oat01-{secrets.token_hex(8)}", f"r3fresh-{secrets.token_hex(8)}"
        self.access.add(access)
        self.refresh.add(refresh)
        return access, refresh

    def settings(self, **changes: Any) -> OAuthSettings:
        """How to ask it."""
        return OAuthSettings(**{"token_url": self.url, "client_id": "warmline-test"} | changes)

    @asynccontextmanager
    async def serving(self) -> AsyncIterator[None]:
        """While it is up."""
        server = web.Server(self._handle, access_log=None, handler_cancellation=True)
        runner = web.ServerRunner(server, shutdown_timeout=0.5)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        self.url = f"http://127.0.0.1:{runner.addresses[0][1]}/token"
        yield
        await runner.cleanup()

    async def _handle(self, request: web.BaseRequest) -> web.StreamResponse:
        is_json = request.content_type == "application/json"
        text = await request.text()
        asked: dict[str, str] = json.loads(text) if is_json else dict(parse_qsl(text))
        self.asked.append({"content-type": request.content_type} | asked)
        self.came.set()
        await self.open.wait()
        if self.answer is not None:
            status, body = self.answer
            return web.Response(status=status, text=body)
        if asked["refresh_token"] not in self.refresh:
            return web.json_response({"error": "invalid_grant"}, status=400)
        self.refresh.remove(asked["refresh_token"])
        self.access.clear()
        access, refresh = self.give()
        given: dict[str, object] = {"access_token": access, "refresh_token": refresh}
        given |= {"token_type": "Bearer", "scope": "user:inference user:profile"}
        if self.lifetime is not None:
            given["expires_in"] = self.lifetime
        return web.json_response(given)
