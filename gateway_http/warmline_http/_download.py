"""Bytes that a call streams, as the body of an answer."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing
from typing import TypeVar
from urllib.parse import quote

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from warmline_http._asgi import gone
from warmline_http._failure import within

T = TypeVar("T")

# Never shown by a browser as a page of ours, whatever is in it.
_SAFE = {"content-security-policy": "sandbox; default-src 'none'", "cache-control": "no-store"}


class Download(Response):
    """What a generator yields, saved by a browser as a file of this name.

    Where the generator fails midway the connection is cut, so that what came is not taken for the whole.
    Each piece has `timeout` seconds, to come and to be taken.
    """

    def __init__(
        self,
        source: AsyncGenerator[bytes, None],
        *,
        name: str,
        timeout: float,
        media_type: str = "application/octet-stream",
    ) -> None:
        plain = "".join(c if c.isascii() and (c.isalnum() or c in "._-") else "_" for c in name)
        disposition = f"attachment; filename=\"{plain}\"; filename*=UTF-8''{quote(name, safe='')}"
        super().__init__(
            headers=_SAFE | {"content-disposition": disposition}, media_type=media_type
        )
        # It is not known before it has come.
        del self.headers["content-length"]
        self._source = source
        self._timeout = timeout

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve it; a failure before the first piece is raised before anything is said."""
        del scope
        async with aclosing(self._source):
            chunk = await _next(self._source, self._timeout)
            await send({"type": "http.response.start", "status": 200, "headers": self.raw_headers})
            leaving = asyncio.create_task(gone(receive))
            try:
                while chunk is not None and not leaving.done():
                    async with asyncio.timeout(self._timeout):
                        await send({"type": "http.response.body", "body": chunk, "more_body": True})
                    chunk = await _next(self._source, self._timeout)
                await send({"type": "http.response.body", "body": b""})
            finally:
                leaving.cancel()
                await asyncio.wait({leaving})


async def _next(source: AsyncIterator[T], timeout: float) -> T | None:
    async with within(timeout):
        return await anext(source, None)
