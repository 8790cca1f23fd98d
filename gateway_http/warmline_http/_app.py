"""The application: every route, behind the guard."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from importlib.metadata import version

import structlog
from fastapi import APIRouter, FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi_offline import FastAPIOffline
from google.protobuf.message import DecodeError, EncodeError
from starlette.exceptions import HTTPException
from starlette.responses import Response
from starlette.types import ASGIApp
from warmline.v1 import model_service_pb2

from warmline_http import (
    _content,
    _gateway,
    _health,
    _metrics,
    _models,
    _pages,
    _sessions,
    _summary,
    anthropic,
    chat,
    openai,
)
from warmline_http._addresses import is_loopback
from warmline_http._failure import Failure
from warmline_http._guard import Guard
from warmline_http._link import Link
from warmline_http._metrics import Metrics, Watched
from warmline_http._settings import HttpSettings
from warmline_http._shapes import response_of

_log = structlog.get_logger(__name__)

_ABOUT = (
    "Claude Code over HTTP: the wire formats of Anthropic and OpenAI, server-sent events, WebSocket and "
    "REST, in front of Warmline's gRPC service."
)
# So long a service may take to say whether it lets everybody in.
_START_TIMEOUT = 60.0
# What JSON can say and no message of the API can: half a character, or what is nested too deeply.
_UNSPEAKABLE = (UnicodeEncodeError, EncodeError, DecodeError, RecursionError)
# Routes are tried in this order: those that somebody waits for come first.
_ROUTERS: tuple[APIRouter, ...] = (
    anthropic.router,
    anthropic.keepalive_router,
    openai.router,
    chat.stream_router,
    chat.socket_router,
    _gateway.router,
    _summary.router,
    _health.router,
    _metrics.router,
    _models.router,
    _sessions.router,
    _content.router,
    _pages.router,
)


class Exposed(Exception):  # noqa: N818  # named for what is the case
    """The port is open to others, and the service asks nobody who they are."""


def create_app(settings: HttpSettings) -> ASGIApp:
    """The shim as an ASGI application. Its start raises Exposed where it must not be reached from outside."""
    app = routes(settings)
    return Watched(Guard(app, settings), app.state.metrics)


def routes(settings: HttpSettings) -> FastAPI:
    """Every route, without what is around them."""
    app = FastAPIOffline(
        title="Warmline",
        description=_ABOUT,
        version=version("warmline"),
        lifespan=_lifespan(settings),
        # Nothing that it tells may be fetched from elsewhere.
        servers=[{"url": "/"}],
    )
    app.state.settings = settings
    app.state.metrics = Metrics()
    for router in _ROUTERS:
        app.include_router(router)
    app.add_exception_handler(Failure, _tell)
    app.add_exception_handler(HTTPException, _tell)
    app.add_exception_handler(RequestValidationError, _tell)
    for unspeakable in _UNSPEAKABLE:
        app.add_exception_handler(unspeakable, _tell)
    app.add_exception_handler(Exception, _tell_fault)
    return app


def _lifespan(
    settings: HttpSettings,
) -> Callable[[FastAPI], AbstractAsyncContextManager[None]]:
    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        app.state.link = Link(settings)
        try:
            if not is_loopback(settings.host):
                await _check_closed(app.state.link)
            yield
        finally:
            await app.state.link.aclose()

    return lifespan


async def _check_closed(link: Link) -> None:
    """Wait until the service says who it lets in."""
    request = model_service_pb2.ListModelsRequest(page_size=1)
    until = asyncio.get_running_loop().time() + _START_TIMEOUT
    while True:
        try:
            await link.unary("models", "ListModels", request, (), timeout=5.0)
        except Failure as failure:
            if failure.status in (401, 403):
                return
            if asyncio.get_running_loop().time() > until:
                raise
            _log.info("waiting for the service", reason=failure.reason)
            await asyncio.sleep(1.0)
        else:
            raise Exposed(
                "The service asks nobody who they are (it has no keys), so the shim may listen on loopback "
                "alone."
            )


async def _tell(request: Request, error: Exception) -> Response:
    failure = _failure_of(error, request.state.request_id)
    if failure.reason == "INTERNAL":
        _log.error("request failed", request_id=request.state.request_id, exc_info=error)
    return response_of(request.state.shape, failure, request.state.request_id)


async def _tell_fault(request: Request, error: Exception) -> Response:
    answer = await _tell(request, error)
    # Whoever raises it again after this makes the server close the connection.
    answer.headers["connection"] = "close"
    return answer


def _failure_of(error: Exception, request_id: str) -> Failure:
    if isinstance(error, Failure):
        return error
    if isinstance(error, HTTPException):
        if isinstance(error.__cause__, Failure):
            return error.__cause__  # FastAPI hides what went wrong while it read the body.
        return Failure(error.status_code, f"HTTP_{error.status_code}", str(error.detail))
    if isinstance(error, RequestValidationError):
        return _invalid(error)
    if isinstance(error, _UNSPEAKABLE):
        return Failure.field("body", "has text that is no Unicode, or is nested too deeply")
    return Failure.fault(request_id)


def _invalid(error: RequestValidationError) -> Failure:
    wrong: dict[str, str] = {}
    for each in error.errors():
        place = [str(part) for part in each["loc"]]
        # `body`, `query` and the like say where, not which.
        # What is no JSON has no fields, only a place at which it goes wrong.
        name = place[0] if each["type"] == "json_invalid" else ".".join(place[1:]) or place[0]
        wrong.setdefault(name[:200], str(each["msg"]))
    text = "; ".join(f"{name}: {what}" for name, what in list(wrong.items())[:5])
    return Failure(400, "FIELD_INVALID", text, fields=wrong)
