"""What is said on a way out: a head that names a host, an answer, and then bytes both ways."""

from __future__ import annotations

import asyncio
import re
from http import HTTPStatus

from warmline_service.egress._outlet import Streams, Target, Turned

# A head, and what waits to be passed on, in bytes.
BUFFER = 16 * 1024
ESTABLISHED = b"HTTP/1.1 200 Connection established\r\n\r\n"
_PIECE = 64 * 1024
# Seconds for what is on its way when both have said all.
_PARTING = 2.0
_LINE = re.compile(rb"([A-Z]{1,20}) (\S+) HTTP/1\.[01]")
_AUTHORITY = re.compile(r"(?:\[([0-9A-Fa-f:.]{2,45})\]|([A-Za-z0-9._-]{1,253})):([0-9]{1,5})")
_HIGHEST_PORT = 65535


async def read_target(reader: asyncio.StreamReader, timeout: float) -> Target | None:
    """What is asked for; None where nothing is. Raises Turned, and OSError where the asker has gone."""
    try:
        async with asyncio.timeout(timeout):
            head = await reader.readuntil(b"\r\n\r\n")
    except TimeoutError:
        raise Turned(408, f"The request did not come within {timeout:g} s.") from None
    except asyncio.LimitOverrunError:
        raise Turned(431, f"The request's head has more than {BUFFER} bytes.") from None
    except asyncio.IncompleteReadError:
        return None
    return parse_target(head)


def parse_target(head: bytes) -> Target:
    """What a request asks for. Raises Turned for all but CONNECT."""
    line = _LINE.fullmatch(head.partition(b"\r\n")[0])
    if line is None:
        raise Turned(400, "This is no request.")
    if line[1] != b"CONNECT":
        raise Turned(405, "Only https goes out here: nothing is forwarded but by CONNECT.")
    found = _AUTHORITY.fullmatch(line[2].decode("latin-1"))
    if found is None or not 0 < int(found[3]) <= _HIGHEST_PORT:
        raise Turned(400, "What is to be connected to is not written as host:port.")
    host = (found[1] or found[2]).lower().removesuffix(".")
    return Target(host, int(found[3]))


def answer(turned: Turned) -> bytes:
    """What somebody is told who is turned away; the connection ends with it."""
    text = f"{turned.message}\n".encode()
    head = [
        f"HTTP/1.1 {turned.status} {HTTPStatus(turned.status).phrase}",
        "Content-Type: text/plain; charset=utf-8",
        f"Content-Length: {len(text)}",
        "Connection: close",
    ]
    if turned.status == HTTPStatus.METHOD_NOT_ALLOWED:
        head.append("Allow: CONNECT")
    return "\r\n".join([*head, "", ""]).encode() + text


async def relay(one: Streams, other: Streams, idle: float) -> None:
    """Pass bytes both ways until both have ended; no more is kept than fits in a buffer.

    Raises OSError, in a group, where one breaks; TimeoutError where nothing moves for `idle` seconds.
    """
    async with asyncio.timeout(idle) as patience:
        async with asyncio.TaskGroup() as both:
            both.create_task(_pour(one[0], other[1], patience, idle))
            both.create_task(_pour(other[0], one[1], patience, idle))


async def part(streams: Streams) -> None:
    """Close a connection with all said that there is to say, as far as that takes no longer than a moment."""
    reader, writer = streams
    try:
        async with asyncio.timeout(_PARTING):
            _say_no_more(writer)
            # What comes unread when a connection is closed takes back what was said on it.
            while await reader.read(_PIECE):
                pass
    except OSError:
        pass  # It has gone, or does not go: either way that was all.
    finally:
        writer.transport.abort()


async def _pour(
    source: asyncio.StreamReader,
    into: asyncio.StreamWriter,
    patience: asyncio.Timeout,
    idle: float,
) -> None:
    loop = asyncio.get_running_loop()
    while piece := await source.read(_PIECE):
        into.write(piece)
        await into.drain()
        if not patience.expired():
            patience.reschedule(loop.time() + idle)
    _say_no_more(into)


def _say_no_more(writer: asyncio.StreamWriter) -> None:
    if not writer.is_closing():
        writer.write_eof()
