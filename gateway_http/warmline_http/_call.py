"""What a route gets of its request: the way to the service, in the caller's name."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Iterable
from dataclasses import dataclass, field, replace
from typing import Annotated, Any

from fastapi import Depends, Request, WebSocket
from starlette.requests import HTTPConnection
from warmline.v1 import chat_service_pb2 as chat_pb
from warmline.v1 import events_pb2 as events_pb

from warmline_http._caller import Metadata
from warmline_http._link import Chat, Events, Link
from warmline_http._settings import HttpSettings
from warmline_http._shapes import Shape


@dataclass(frozen=True)
class Call:
    """One request's way to the service; its failures are Failure."""

    link: Link
    settings: HttpSettings
    metadata: Metadata = field(repr=False)
    request_id: str
    shape: Shape

    @property
    def shows_who(self) -> bool:
        """Whether the caller shows who it is, in a header."""
        return any(name == "authorization" for name, _ in self.metadata)

    def shown(self, secret: str) -> Call:
        """The same, of a caller that shows this."""
        return replace(self, metadata=(*self.metadata, ("authorization", f"Bearer {secret}")))

    async def unary(self, service: str, method: str, request: Any) -> Any:
        """As `Link.unary`, in the caller's name."""
        return await self.link.unary(service, method, request, self.metadata)

    def stream(self, service: str, method: str, request: Any) -> AsyncGenerator[Any, None]:
        """As `Link.stream`, in the caller's name."""
        return self.link.stream(service, method, request, self.metadata)

    async def upload(self, service: str, method: str, requests: Iterable[Any]) -> Any:
        """As `Link.upload`, in the caller's name."""
        return await self.link.upload(service, method, requests, self.metadata)

    async def chat(
        self, opening: chat_pb.Open, *more: chat_pb.ChatRequest
    ) -> tuple[Chat, list[events_pb.Event]]:
        """As `Link.chat`, in the caller's name."""
        return await self.link.chat(self.metadata, opening, *more)

    async def events(self, method: str, request: Any) -> Events:
        """As `Link.events`, in the caller's name."""
        return await self.link.events(method, request, self.metadata)


def call_of(connection: HTTPConnection) -> Call:
    """The way of a request, or of a WebSocket."""
    app, state = connection.app.state, connection.state
    return Call(app.link, app.settings, state.metadata, state.request_id, state.shape)


# Asynchronous, though they wait for nothing: FastAPI runs others in a thread.
async def _of_request(request: Request) -> Call:
    return call_of(request)


async def _of_socket(socket: WebSocket) -> Call:
    return call_of(socket)


Asked = Annotated[Call, Depends(_of_request)]
Connected = Annotated[Call, Depends(_of_socket)]
