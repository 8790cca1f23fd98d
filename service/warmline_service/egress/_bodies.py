"""Request bodies, read or passed on within a bound."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from typing import Self

from aiohttp import web

from warmline_service.config import MIB

MAX_BODY = 64 * MIB
# What may have to be sent twice is kept meanwhile: one body, and all of them at once.
_KEPT_BODY = 4 * MIB
_ALL_KEPT = 64 * MIB
_PIECE = 64 * 1024


class BodyTooLargeError(Exception):
    """A body is longer than it may be."""

    def __init__(self, limit: int) -> None:
        super().__init__(f"The request body has more than {limit} bytes.")


class Upload:
    """A request's body, piece by piece as it arrives.

    `too_large` says afterwards that it was cut off at `limit` bytes: what reads it may wrap the
    BodyTooLargeError that it raises.
    """

    def __init__(self, request: web.BaseRequest, limit: int = MAX_BODY) -> None:
        self.too_large = (request.content_length or 0) > limit
        self._content = request.content
        self._limit = limit
        self._size = 0

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> bytes:
        piece = await self._content.readany() if not self.too_large else b""
        self._size += len(piece)
        self.too_large |= self._size > self._limit
        if self.too_large:
            raise BodyTooLargeError(self._limit)
        if not piece:
            raise StopAsyncIteration
        return piece


async def read_body(request: web.BaseRequest, limit: int = MAX_BODY) -> bytes:
    """The whole body; raises BodyTooLargeError."""
    return b"".join([piece async for piece in Upload(request, limit)])


async def pieces(body: bytes) -> AsyncIterator[bytes]:
    """A body that was read, piece by piece."""
    for start in range(0, len(body), _PIECE):
        yield body[start : start + _PIECE]


class Shelf:
    """Room for bodies that may have to be sent again."""

    def __init__(self) -> None:
        self._taken = 0

    @contextmanager
    def room(self, request: web.BaseRequest) -> Iterator[bool]:
        """Whether there is room for a request's body, which says its length; until the end of the block."""
        size = request.content_length
        if size is None or size > _KEPT_BODY or self._taken + size > _ALL_KEPT:
            yield False
            return
        self._taken += size
        try:
            yield True
        finally:
            self._taken -= size


def cut(request: web.BaseRequest) -> None:
    """Drop a request's connection, so that its client sees that the answer is not whole."""
    if request.transport is not None:
        request.transport.close()
