"""What stands behind the egress and answers model requests."""

from __future__ import annotations

import enum
from typing import Protocol

from aiohttp import web

from warmline_service.egress._account import Account


class Route(enum.Enum):
    """The requests that are let through; the values are paths."""

    MESSAGES = "/v1/messages"
    COUNT_TOKENS = "/v1/messages/count_tokens"
    ROOT = "/"


def route_of(request: web.BaseRequest) -> Route | None:
    """Which of them a request is; None for any other.

    The target is compared as it was sent: nothing that decodes or resolves to such a path is one.
    """
    path = request.raw_path.partition("?")[0]
    if request.method == "POST" and path != Route.ROOT.value:
        return next((route for route in Route if route.value == path), None)
    return Route.ROOT if request.method in ("GET", "HEAD") and path == Route.ROOT.value else None


class Provider(Protocol):
    """Answers the model requests of bound slots."""

    async def start(self) -> None:
        """Get ready; called once, on the loop that the requests come on."""

    async def forward(
        self, request: web.BaseRequest, route: Route, account: Account
    ) -> web.StreamResponse:
        """Answer a MESSAGES or COUNT_TOKENS request of an account, and meter it before it ends."""
        ...

    async def count(self, body: bytes, account: Account) -> tuple[int, bytes]:
        """Answer a COUNT_TOKENS request of an account that no slot makes: the status, and the body.

        Raises WarmlineError where there is nothing to pay with.
        """
        ...

    async def aclose(self) -> None:
        """Let go of every connection."""
