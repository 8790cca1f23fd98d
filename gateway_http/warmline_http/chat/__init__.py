"""Conversations for browsers: as server-sent events, and over a WebSocket."""

from warmline_http.chat._routes import router as stream_router
from warmline_http.chat._socket import router as socket_router

__all__ = ["socket_router", "stream_router"]
