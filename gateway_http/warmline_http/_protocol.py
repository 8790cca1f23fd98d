"""HTTP/1.1 at the port, with what the server leaves open: a request's head is bounded."""

from __future__ import annotations

import asyncio
from http import HTTPStatus
from typing import Any
from urllib.parse import unquote

import h11
from starlette.responses import Response
from uvicorn.config import Config
from uvicorn.protocols.http.h11_impl import H11Protocol
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol
from uvicorn.server import ServerState
from websockets.exceptions import SecurityError

from warmline_http._caller import request_id_of
from warmline_http._failure import Failure
from warmline_http._settings import HttpSettings
from warmline_http._shapes import response_of, shape_of

# So long is read what a refused client still sends: unread bytes make the kernel reset the connection,
# and the answer is lost with it.
_LINGER = 2.0
_TOO_LARGE = HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE.value


def protocol_of(settings: HttpSettings) -> type[H11Protocol]:
    """The protocol of a server with these settings."""

    class Bounded(Protocol):
        read_timeout = settings.read_timeout
        header_bytes = settings.header_bytes
        most_connections = settings.connections

    return Bounded


class _Parser(h11.Connection):
    """Knows how large a head was, however it came, and what was wrong with one."""

    def __init__(self, header_bytes: int) -> None:
        super().__init__(h11.SERVER, header_bytes)
        self.request: h11.Request | None = None
        self.is_too_large = False
        self._header_bytes = header_bytes

    def next_event(self) -> Any:
        """As h11's, which bounds only what is not complete after a read."""
        try:
            event = super().next_event()
        except h11.RemoteProtocolError as error:
            self.is_too_large = error.error_status_hint == _TOO_LARGE
            raise
        if isinstance(event, h11.Request):
            self.request = event
            self.is_too_large = _size_of(event) > self._header_bytes
            if self.is_too_large:
                raise h11.RemoteProtocolError("the head is too large")
        return event


def _size_of(request: h11.Request) -> int:
    headers = sum(len(name) + len(value) + len(b": \r\n") for name, value in request.headers)
    return len(request.method) + len(request.target) + len(b"  HTTP/1.1\r\n\r\n") + headers


class _Unread(Exception):  # noqa: N818  # what it is
    """A handshake that only h11 could read."""


class Socket(WebSocketsSansIOProtocol):
    """A WebSocket. The server would neither answer nor close one whose handshake it cannot read."""

    def data_received(self, data: bytes) -> None:
        """Take what came; its first is a whole handshake."""
        super().data_received(data)
        if self.conn.handshake_exc is not None and not self.handshake_initiated:
            self.connections.discard(self)
            raise _Unread from self.conn.handshake_exc


class Protocol(H11Protocol):
    """One connection.

    A head has `read_timeout` from the connection's beginning, or from its first byte after an answer; so
    has what is left of a body that nobody waits for. Between requests `timeout_keep_alive` counts, and
    while an answer is made nothing does. Of more connections than `most_connections` all requests are
    refused.
    """

    read_timeout: float
    header_bytes: int
    most_connections: int

    def __init__(
        self,
        config: Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        super().__init__(config, server_state, app_state, _loop)
        self.conn = self._parser = _Parser(self.header_bytes)
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
            self.app = _refuse_all if self._is_one_too_many else self.config.loaded_app
            super().data_received(data)
            self._look()

    def handle_websocket_upgrade(self, event: h11.Request) -> None:
        """Hand the connection over to another protocol, which is not to be disturbed."""
        if self._is_one_too_many:
            self._refuse(_too_many())
            return
        self._wait_no_more()
        self._is_over = True
        try:
            super().handle_websocket_upgrade(event)
        except _Unread as unread:
            self.connections.add(self)
            if isinstance(unread.__cause__, SecurityError):
                text = "A WebSocket's handshake has at most 128 headers, and lines of 8 KiB."
                self._refuse(Failure(_TOO_LARGE, "HEADERS_TOO_LARGE", text))
            else:
                self._refuse(Failure(400, "HTTP_INVALID", "This is no WebSocket's handshake."))

    def send_400_response(self, msg: str) -> None:
        """Refuse what is no request, in JSON as everything else."""
        if self._parser.is_too_large:
            text = f"The request's line and headers have more than {self.header_bytes} bytes."
            self._refuse(Failure(_TOO_LARGE, "HEADERS_TOO_LARGE", text))
        else:
            self._refuse(Failure(400, "HTTP_INVALID", "This is no HTTP request."))

    @property
    def _is_one_too_many(self) -> bool:
        return len(self.connections) > self.most_connections

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
        if self.cycle is not None:
            # The body of a request that a route has already.
            self.cycle.disconnected = True
            self.cycle.message_event.set()
        if self.conn.our_state not in (h11.IDLE, h11.SEND_RESPONSE):
            self.transport.close()
            return
        self._answer(failure)
        self.flow.resume_reading()
        if self.transport.can_write_eof():
            self.transport.write_eof()
        self._timer = self.loop.call_later(_LINGER, self.transport.abort)

    def _answer(self, failure: Failure) -> None:
        path, headers, has_body = self._asked()
        answer = _last_answer(path, headers, failure)
        reason = HTTPStatus(answer.status_code).phrase.encode()
        for event in (
            h11.Response(status_code=answer.status_code, headers=answer.raw_headers, reason=reason),
            h11.Data(data=bytes(answer.body) if has_body else b""),
            h11.EndOfMessage(),
        ):
            self.transport.write(self.conn.send(event) or b"")

    def _asked(self) -> tuple[str, dict[bytes, bytes], bool]:
        """Path and headers as far as they came, and whether the answer has a body."""
        request = self._parser.request
        if self.conn.our_state is h11.SEND_RESPONSE and request is not None:
            headers = dict(request.headers)
            return _path_of(request.target), headers, request.method != b"HEAD"
        line = self.conn.trailing_data[0].partition(b"\n")[0].split(b" ")
        return _path_of(line[1]) if len(line) > 1 else "", {}, line[0] != b"HEAD"


def _path_of(target: bytes) -> str:
    return unquote(target.partition(b"?")[0].decode("latin-1"))


def _last_answer(path: str, headers: dict[bytes, bytes], failure: Failure) -> Response:
    """A refusal, after which the connection is closed."""
    answer = response_of(shape_of(path, headers), failure, request_id_of(headers))
    answer.headers["connection"] = "close"
    return answer


def _too_many() -> Failure:
    return Failure(
        503, "TOO_MANY_CONNECTIONS", "There are too many connections already.", retry_after=1.0
    )


async def _refuse_all(scope: Any, receive: Any, send: Any) -> None:
    """The application of a connection that is one too many."""
    answer = _last_answer(scope["path"], dict(scope["headers"]), _too_many())
    await answer(scope, receive, send)
