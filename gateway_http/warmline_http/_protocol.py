"""HTTP/1.1 at the port, with what the server leaves open: a request's head is bounded."""

from __future__ import annotations

import asyncio
import uuid
from http import HTTPStatus
from typing import Any
from urllib.parse import unquote

import h11
from uvicorn.config import Config
from uvicorn.protocols.http.h11_impl import H11Protocol
from uvicorn.server import ServerState

from warmline_http._failure import Failure
from warmline_http._settings import HttpSettings
from warmline_http._shapes import response_of, shape_of

# So long is read what a refused client still sends: unread bytes make the kernel reset the connection,
# and the answer is lost with it.
_LINGER = 2.0


def protocol_of(settings: HttpSettings) -> type[H11Protocol]:
    """The protocol of a server with these settings."""

    class Bounded(Protocol):
        read_timeout = settings.read_timeout

    return Bounded


class Protocol(H11Protocol):
    """One connection.

    A head has `read_timeout` from the connection's beginning, or from its first byte after an answer; so
    has what is left of a body that nobody waits for. Between requests `timeout_keep_alive` counts, and
    while an answer is made nothing does.
    """

    read_timeout: float

    def __init__(
        self,
        config: Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        super().__init__(config, server_state, app_state, _loop)
        self._timer: asyncio.TimerHandle | None = None
        self._is_over = False

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn
        """Begin to wait for a head."""
        super().connection_made(transport)
        self._wait()

    def connection_lost(self, exc: Exception | None) -> None:
        """Wait for nothing any more."""
        self._wait_no_more()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Take what came, and see whether a head is waited for now."""
        if not self._is_over:
            super().data_received(data)
            self._look()

    def handle_websocket_upgrade(self, event: h11.Request) -> None:
        """Hand the connection over to another protocol, which is not to be disturbed."""
        self._wait_no_more()
        self._is_over = True
        super().handle_websocket_upgrade(event)

    def _look(self) -> None:
        if self._is_over:
            return
        if self.cycle is not None and not self.cycle.response_complete:
            self._wait_no_more()
        elif self._timer is None:
            self._wait()

    def _wait(self) -> None:
        self._timer = self.loop.call_later(self.read_timeout, self._timed_out)

    def _wait_no_more(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _timed_out(self) -> None:
        if self.conn.our_state is h11.IDLE and self.conn.trailing_data[0]:
            text = f"The head did not come within {self.read_timeout:g} s."
            self._refuse(Failure(408, "HEAD_TIMEOUT", text))
        else:
            # Nothing was asked, or it has been answered.
            self.transport.close()

    def _refuse(self, failure: Failure) -> None:
        """Answer what never becomes a request, and close."""
        self._is_over = True
        self._wait_no_more()
        answer = response_of(shape_of(self._path(), {}), failure, str(uuid.uuid4()))
        headers = [*answer.raw_headers, (b"connection", b"close")]
        reason = HTTPStatus(answer.status_code).phrase.encode()
        for event in (
            h11.Response(status_code=answer.status_code, headers=headers, reason=reason),
            h11.Data(data=bytes(answer.body)),
            h11.EndOfMessage(),
        ):
            self.transport.write(self.conn.send(event) or b"")
        if self.transport.can_write_eof():
            self.transport.write_eof()
        self._timer = self.loop.call_later(_LINGER, self.transport.abort)

    def _path(self) -> str:
        """The path that is asked for, as far as it came."""
        line = self.conn.trailing_data[0].partition(b"\n")[0].split(b" ")
        target = line[1] if len(line) > 1 else b""
        return unquote(target.partition(b"?")[0].decode("latin-1"))
