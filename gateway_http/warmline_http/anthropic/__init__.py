"""The Anthropic Messages API: its requests as conversations, and what the model writes as its answers."""

from warmline_http.anthropic._keepalive import router as keepalive_router
from warmline_http.anthropic._routes import router

__all__ = ["keepalive_router", "router"]
