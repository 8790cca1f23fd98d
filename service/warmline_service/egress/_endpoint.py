"""One slot's listening socket: whoever connects to it is that slot."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path

from aiohttp import web

from warmline_service.egress._credential import PLACEHOLDER
from warmline_service.egress._way import Way
from warmline_service.errors import Reason, WarmlineError

Handler = Callable[[web.BaseRequest], Awaitable[web.StreamResponse]]

# sun_path has 108 bytes, the last of them NUL.
_LONGEST_PATH = 107
_BACKLOG = 64
# Seconds for the handlers of a closed endpoint, whose connections are gone by then, to end.
_CLOSE_TIMEOUT = 1.0


def listen_unix(path: Path) -> socket.socket:
    """A socket at `path`, for its owner alone; raises INTERNAL where the path is too long.

    Blocks for some file system calls. The directory should be private: there is a moment between
    the socket's making and its mode.
    """
    size = len(os.fsencode(path))
    if size > _LONGEST_PATH:
        raise WarmlineError(
            Reason.INTERNAL,
            f"The path of a slot's socket has {size} bytes, {_LONGEST_PATH} are possible: "
            "choose a shorter data_dir.",
        )
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        listener.bind(str(path))
        path.chmod(0o600)
    except BaseException:
        listener.close()
        raise
    return listener


def environment(listener: socket.socket) -> Mapping[str, str]:
    """How the CLI finds a listening socket: at a path, or at a port of its own network."""
    name = listener.getsockname()
    if listener.family == socket.AF_UNIX:
        # Without a base URL the CLI does not use the socket.
        where = {"ANTHROPIC_UNIX_SOCKET": name, "ANTHROPIC_BASE_URL": "http://localhost"}
    else:
        host = f"[{name[0]}]" if listener.family == socket.AF_INET6 else name[0]
        where = {"ANTHROPIC_BASE_URL": f"http://{host}:{name[1]}"}
    return {**where, "ANTHROPIC_API_KEY": PLACEHOLDER}


class SlotEndpoint:
    """A slot's open way to the egress; `on_close` is told once that it has ended.

    `way` is the one to the network, where the slot has one: it ends with this.
    """

    def __init__(
        self, listener: socket.socket, handler: Handler, on_close: Callable[[], None]
    ) -> None:
        self.env = environment(listener)
        self._listener = listener
        self._path = Path(listener.getsockname()) if listener.family == socket.AF_UNIX else None
        # Cancelling the handler at a disconnect is what stops the provider after an interrupt.
        self._http = web.Server(handler, handler_cancellation=True, access_log=None)
        self._server: asyncio.Server | None = None
        self._on_close = on_close
        self._closed = False
        self.way: Way | None = None

    async def start(self) -> None:
        """Begin to accept."""
        loop = asyncio.get_running_loop()
        if self._path is None:
            self._server = await loop.create_server(
                self._http, sock=self._listener, backlog=_BACKLOG
            )
        else:
            self._server = await loop.create_unix_server(
                self._http, sock=self._listener, backlog=_BACKLOG
            )

    async def aclose(self) -> None:
        """Refuse further requests, end those under way, remove the socket. May be called twice."""
        if self._closed:
            return
        self._closed = True
        self._on_close()
        if self.way is not None:
            await self.way.aclose()
        if self._server is None:
            self._listener.close()
        else:
            self._server.close()
        for connection in self._http.connections:
            if connection.transport is not None:
                connection.transport.abort()
        await self._http.shutdown(_CLOSE_TIMEOUT)
        if self._path is not None:
            await asyncio.to_thread(_remove, self._path)


def _remove(path: Path) -> None:
    with contextlib.suppress(FileNotFoundError):  # The slot may have been wiped already.
        path.unlink()
