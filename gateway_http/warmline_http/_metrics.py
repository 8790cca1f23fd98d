"""What Prometheus reads: counts and times by route, never by anything that a caller writes."""

from __future__ import annotations

import asyncio
import time
from importlib.metadata import version

from fastapi import APIRouter, Request
from prometheus_client import (
    CONTENT_TYPE_LATEST,
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    ProcessCollector,
    generate_latest,
)
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

router = APIRouter(tags=["gateway"])

_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
_BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120)
# A client that was gone before it was answered.
_GONE = 499


class Metrics:
    """The shim's own registry, and what is in it."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        self.requests = Counter(
            "warmline_http_requests",
            "Requests that were answered.",
            ("route", "method", "status"),
            registry=self.registry,
        )
        self.seconds = Histogram(
            "warmline_http_answer_seconds",
            "From a request's head to that of its answer; a stream's begins at once.",
            ("route", "method"),
            buckets=_BUCKETS,
            registry=self.registry,
        )
        self.streams = Gauge(
            "warmline_http_open_streams",
            "Streams that are open.",
            ("kind",),
            registry=self.registry,
        )
        self.events = Counter(
            "warmline_http_sse_events", "Server-sent events.", registry=self.registry
        )
        build = Gauge("warmline_http_build_info", "1.", ("version",), registry=self.registry)
        build.labels(version("warmline")).set(1)
        for kind in ("sse", "websocket"):
            self.streams.labels(kind).set(0)


class Watched:
    """Counts what goes through an application."""

    def __init__(self, app: ASGIApp, metrics: Metrics) -> None:
        self._app = app
        self._metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve, and count."""
        if scope["type"] == "websocket":
            with self._metrics.streams.labels("websocket").track_inprogress():
                await self._app(scope, receive, send)
        elif scope["type"] == "http":
            seen = _Seen(send, self._metrics)
            try:
                await self._app(scope, receive, seen)
            finally:
                seen.ended(scope)
        else:
            await self._app(scope, receive, send)


class _Seen:
    """Sends an answer, and looks at it."""

    def __init__(self, send: Send, metrics: Metrics) -> None:
        self._send = send
        self._metrics = metrics
        self._began = time.perf_counter()
        self._seconds = -1.0
        self._status = _GONE
        self._is_stream = False

    async def __call__(self, message: Message) -> None:
        """Send a part of it."""
        if message["type"] == "http.response.start":
            self._seconds = time.perf_counter() - self._began
            self._status = message["status"]
            kind = dict(message.get("headers", ())).get(b"content-type", b"")
            if kind.startswith(b"text/event-stream"):
                self._is_stream = True
                self._metrics.streams.labels("sse").inc()
        elif self._is_stream:
            body = message.get("body", b"")
            # Each has one line of data, and no line break in it.
            self._metrics.events.inc(body.startswith(b"data: ") + body.count(b"\ndata: "))
        await self._send(message)

    def ended(self, scope: Scope) -> None:
        """Count it."""
        if self._is_stream:
            self._metrics.streams.labels("sse").dec()
        route, method = _route_of(scope), scope["method"]
        method = method if method in _METHODS else "other"
        self._metrics.requests.labels(route, method, str(self._status)).inc()
        if self._seconds >= 0:
            self._metrics.seconds.labels(route, method).observe(self._seconds)


def _route_of(scope: Scope) -> str:
    """The route as it is written in the code; those of no router of ours are one."""
    path = getattr(scope.get("route"), "path", "")
    return path or ("other" if "endpoint" in scope else "none")


@router.get("/metrics", response_class=Response)
async def prometheus(request: Request) -> Response:
    """The shim's own counts, as Prometheus reads them; nothing in them is a caller's."""
    metrics: Metrics = request.app.state.metrics
    text = await asyncio.to_thread(generate_latest, metrics.registry)
    return Response(text, media_type=CONTENT_TYPE_LATEST)
