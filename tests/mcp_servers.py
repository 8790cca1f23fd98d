"""Real MCP servers for tests, made with the `mcp` package, which ask for a bearer token."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, Literal

import uvicorn
from mcp.server import MCPServer
from mcp.server.auth.provider import AccessToken
from mcp.server.auth.settings import AuthSettings
from mcp.server.mcpserver import Context
from pydantic import AnyHttpUrl

TOKEN = "s3cret-t0ken"  # of servers that live for a test
# What a service needs to be allowed to reach them.
REACHABLE: dict[str, Any] = {"allow_networks": ["127.0.0.0/8"], "allow_http": True}


class Bearer:
    """Knows one token."""

    async def verify_token(self, token: str) -> AccessToken | None:
        """Whose it is."""
        return AccessToken(token=token, client_id="t", scopes=[]) if token == TOKEN else None


class Running:
    """A server that can be stopped, and started again at the same address."""

    def __init__(self, kind: Literal["http", "sse"], name: str) -> None:
        self.kind = kind
        self.calls: list[str] = []
        self.hanging = 0
        self.grown = asyncio.Event()
        self.cancelled = asyncio.Event()
        self.entered = asyncio.Event()
        self.app = self._tools(name)
        self._listening = socket.create_server(("127.0.0.1", 0))
        self._port = self._listening.getsockname()[1]
        self.url = f"http://127.0.0.1:{self._port}/{'sse' if kind == 'sse' else 'mcp'}"
        self._server: uvicorn.Server | None = None
        self._serving: asyncio.Task[None] | None = None

    def _tools(self, name: str) -> MCPServer[Any]:
        url = AnyHttpUrl("http://127.0.0.1")
        made: MCPServer[Any] = MCPServer(
            name,
            instructions="Add with this.",
            token_verifier=Bearer(),
            auth=AuthSettings(
                issuer_url=url, resource_server_url=url, validate_token_resource=False
            ),
            log_level="CRITICAL",
        )

        @made.tool()
        def add(a: int, b: int) -> int:
            """Add two numbers."""
            self.calls.append("add")
            return a + b

        @made.tool()
        def fail() -> str:
            """Fail."""
            raise ValueError("out of order")

        @made.tool()
        def flood() -> str:
            """Say far too much."""
            return "x" * 1_000_000

        @made.tool()
        async def hang() -> str:
            """Never come back."""
            self.entered.set()
            self.hanging += 1
            try:
                await asyncio.Event().wait()
            finally:
                self.cancelled.set()
            return ""

        @made.tool()
        async def grow(context: Context) -> str:
            """Offer one tool more from now on."""
            made.add_tool(lambda: "new", name="grown", description="New")
            # The one is heard by clients of the newest version, the other by those of older ones.
            await context.notify_tools_changed()
            await context.session.send_tool_list_changed()
            self.grown.set()
            return "grown"

        @made.resource("note://one")
        def note() -> str:
            return "a note"

        return made

    async def start(self) -> None:
        """Serve."""
        made = self.app
        app = made.sse_app() if self.kind == "sse" else made.streamable_http_app()
        config = uvicorn.Config(app, log_config=None, lifespan="on", timeout_graceful_shutdown=1)
        self._server = uvicorn.Server(config)
        if self._listening.fileno() < 0:
            self._listening = socket.create_server(("127.0.0.1", self._port))
        self._serving = asyncio.create_task(self._server.serve([self._listening]))
        while not self._server.started:
            assert not self._serving.done()
            await asyncio.sleep(0.01)

    async def stop(self) -> None:
        """Serve no more: connections are refused."""
        if self._server is not None and self._serving is not None:
            self._server.should_exit = True
            await asyncio.wait_for(self._serving, 60)
            self._server = None
        self._listening.close()


@asynccontextmanager
async def mcp_server(
    kind: Literal["http", "sse"] = "http", name: str = "sums"
) -> AsyncIterator[Running]:
    """A server that is up."""
    made = Running(kind, name)
    await made.start()
    try:
        yield made
    finally:
        with contextlib.suppress(TimeoutError):
            await made.stop()
