"""What a server says unasked, as far as it is of use: the library makes a task of each such message."""

from __future__ import annotations

import contextvars
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from types import TracebackType
from typing import Any, Self

import mcp_types as types
from mcp.shared._stream_protocols import ReadStream, WriteStream
from mcp.shared.message import SessionMessage

Item = SessionMessage | Exception
# Requests of the server that it has no answer to yet; more are not heard.
_MOST = 16
_HEARD = frozenset({"notifications/tools/list_changed", "notifications/subscriptions/acknowledged"})


@asynccontextmanager
async def dammed(
    transport: Any,
) -> AsyncIterator[tuple[ReadStream[Item], WriteStream[SessionMessage]]]:
    """A transport of the library's, with that much of what comes in on it."""
    async with transport as (reading, writing):
        dam = _Dam()
        yield _Reading(reading, dam), _Writing(writing, dam)


class _Dam:
    def __init__(self) -> None:
        self._unanswered = 0

    def lets(self, item: Item) -> bool:
        """Whether something that came in goes on."""
        message = item.message if isinstance(item, SessionMessage) else None
        if isinstance(message, types.JSONRPCNotification):
            return message.method in _HEARD
        if isinstance(message, types.JSONRPCRequest):
            if self._unanswered >= _MOST:
                return False
            self._unanswered += 1
        return True

    def sent(self, item: SessionMessage) -> None:
        """Something goes out."""
        if isinstance(item.message, types.JSONRPCResponse | types.JSONRPCError):
            self._unanswered = max(0, self._unanswered - 1)


class _Stream:
    """What both directions have in common with the library's own."""

    def __init__(self, inner: Any, dam: _Dam) -> None:
        self._inner = inner
        self._dam = dam

    async def aclose(self) -> None:
        await self._inner.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc_val: BaseException | None,
        exc_tb: TracebackType | None,
    ) -> None:
        await self.aclose()


class _Reading(_Stream):
    @property
    def last_context(self) -> contextvars.Context | None:
        """The library's."""
        context: contextvars.Context | None = getattr(self._inner, "last_context", None)
        return context

    async def receive(self) -> Item:
        while True:
            item: Item = await self._inner.receive()
            if self._dam.lets(item):
                return item

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Item:
        while True:
            item: Item = await anext(self._inner)
            if self._dam.lets(item):
                return item


class _Writing(_Stream):
    async def send(self, item: SessionMessage) -> None:
        await self._inner.send(item)
        self._dam.sent(item)
