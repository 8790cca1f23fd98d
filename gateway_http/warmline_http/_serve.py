"""The HTTP server around the application."""

from __future__ import annotations

import asyncio
import logging
import os
import resource
import socket
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import structlog
import uvicorn

from warmline_http._app import create_app
from warmline_http._protocol import Socket, protocol_of
from warmline_http._settings import HttpSettings

# Streams that are open when it stops get so long for what is on its way.
_GRACE = 5


def configure_logging() -> None:
    """Structured lines on stderr."""
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="%Y-%m-%d %H:%M:%S", utc=False),
            # Not the pretty one: it shows the values of variables, callers' keys among them.
            structlog.dev.ConsoleRenderer(exception_formatter=structlog.dev.plain_traceback),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(logging.INFO),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
        cache_logger_on_first_use=True,
    )


def open_many_files() -> None:
    """Have as many files open as the machine allows: each stream takes one, and 1,024 is usual."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


def bound(settings: HttpSettings) -> socket.socket:
    """The listening socket. Raises OSError where the port cannot be had."""
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    made = socket.socket(family, socket.SOCK_STREAM)
    made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        made.bind((settings.host, settings.port))
    except OSError:
        made.close()
        raise
    return made


class Server(uvicorn.Server):
    """A server that says when it listens: `up`."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.up = asyncio.Event()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Start, and say so."""
        await super().startup(sockets)
        if self.started:
            self.up.set()

    async def started_by(self, running: asyncio.Task[None]) -> bool:
        """Wait until it listens, or has ended without; raises what it ended with."""
        up = asyncio.create_task(self.up.wait())
        try:
            await asyncio.wait({running, up}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            up.cancel()
        if running.done():
            running.result()
        return self.up.is_set()


def server_of(settings: HttpSettings) -> Server:
    """The server, to be run on a bound socket."""
    config = uvicorn.Config(
        create_app(settings),
        # h11: strict about what a request is, where others are fast.
        http=protocol_of(settings),
        ws=Socket,
        ws_max_size=settings.body_bytes,
        ws_ping_interval=settings.heartbeat,
        ws_ping_timeout=settings.heartbeat,
        timeout_keep_alive=30,
        timeout_graceful_shutdown=_GRACE,
        ssl_certfile=settings.certificate,
        ssl_keyfile=settings.key,
        access_log=False,
        log_config=None,
        server_header=False,
        proxy_headers=False,
        lifespan="on",
        backlog=4096,
    )
    return Server(config)


@asynccontextmanager
async def serving(settings: HttpSettings) -> AsyncIterator[int]:
    """The shim in this loop, for whoever embeds it and for tests; gives its port."""
    server, listening = server_of(settings), bound(settings)
    port = listening.getsockname()[1]
    running = asyncio.create_task(server._serve([listening]))  # `serve` would take the signals
    try:
        if not await server.started_by(running):
            raise RuntimeError("the HTTP server did not start")
        yield port
    finally:
        server.should_exit = True
        await running
        listening.close()


async def run(settings: HttpSettings, *, follow: bool) -> bool:
    """Serve until a signal, or with `follow` until standard input is closed; False where it did not start.

    Raises OSError where the port cannot be had.
    """
    open_many_files()
    server, listening = server_of(settings), bound(settings)
    port = listening.getsockname()[1]
    running = asyncio.create_task(server.serve([listening]))
    parent = asyncio.create_task(_parent_gone()) if follow else None
    try:
        if await server.started_by(running):
            scheme = "https" if settings.certificate else "http"
            name = settings.listen.rpartition(":")[0]
            print(f"warmline: http on {scheme}://{name}:{port}", flush=True)  # noqa: T201  # for scripts
        if parent is not None:
            await asyncio.wait({running, parent}, return_when=asyncio.FIRST_COMPLETED)
            server.should_exit = True
        await running
    finally:
        if parent is not None:
            parent.cancel()
        listening.close()
    return server.up.is_set()


async def _parent_gone() -> None:
    """Whoever started it holds the other end of standard input, and lets go of it when it ends."""
    loop, reader = asyncio.get_running_loop(), asyncio.StreamReader()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), os.fdopen(0, "rb"))
    while await reader.read(1024):
        pass
