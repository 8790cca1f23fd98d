"""What the gateway says of itself: what is here, how it is, what was used, who did what."""

from __future__ import annotations

from importlib.metadata import version
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Query, Request
from fastapi.responses import JSONResponse
from pydantic import BaseModel, Field
from starlette.responses import Response
from warmline.v1 import audit_service_pb2 as audit_pb
from warmline.v1 import model_service_pb2 as model_pb

from warmline_http._call import Asked, Call
from warmline_http._failure import Failure
from warmline_http._proto import FAILURES, Moment, answer, told

router = APIRouter(tags=["gateway"], responses=FAILURES)

_LINKS = {
    "docs": "/docs",
    "openapi": "/openapi.json",
    "health": "/health",
    "gateway_health": "/gateway/health",
    "live": "/livez",
    "ready": "/readyz",
    "metrics": "/metrics",
    "gateway_metrics": "/gateway/metrics",
    "audit": "/gateway/audit",
    "chat": "/chat",
    "dashboard": "/dashboard",
}
_VERSION = version("warmline")


class Route(BaseModel):
    """A way to call."""

    method: str
    path: str
    summary: str


class Index(BaseModel):
    """What is here."""

    name: Literal["warmline"] = "warmline"
    version: str
    links: dict[str, str]
    routes: list[Route]


class Provider(BaseModel):
    """Where model requests go."""

    name: str


class Choice(BaseModel):
    """A provider, and the model of sessions that name none."""

    provider: str
    model: str


class Routing(BaseModel):
    """Who is asked first, and who is asked where that one cannot answer."""

    default: Choice
    fallback: list[Choice] = []


class Audit(BaseModel):
    """What the audit log keeps."""

    enabled: bool
    request_bodies: bool
    response_bodies: bool


class Health(BaseModel):
    """How it is; what only callers may know is left out for others."""

    status: Literal["ok", "unavailable"] = Field(
        description="Whether the service behind takes calls."
    )
    version: str = Field(description="The gateway's.")
    service_version: str | None = None
    providers: list[Provider] | None = None
    routing: Routing | None = None
    audit: Audit | None = None


@router.get("/")
async def index(request: Request) -> Index:
    """What is here, for programs; `/docs` is for people."""
    return Index(version=_VERSION, links=_LINKS, routes=_routes(request.app.openapi()))


def _routes(document: dict[str, Any]) -> list[Route]:
    return [
        Route(method=method.upper(), path=path, summary=about.get("description", ""))
        for path, methods in document["paths"].items()
        for method, about in methods.items()
    ]


# Balancers ask by HEAD, too.
@router.head("/health", include_in_schema=False)
@router.head("/gateway/health", include_in_schema=False)
@router.get("/health", response_model_exclude_none=True, responses={503: {"model": Health}})
@router.get("/gateway/health", response_model_exclude_none=True, responses={503: {"model": Health}})
async def health(call: Asked) -> Health:
    """How it is, and to whom the service lets in: where messages go and what is kept of them."""
    if not await call.link.serving():
        told = Health(status="unavailable", version=_VERSION)
        return JSONResponse(told.model_dump(exclude_none=True), 503)  # type: ignore[return-value]  # FastAPI passes it on
    try:
        return _told(await call.unary("models", "GetRouting", model_pb.GetRoutingRequest()))
    except Failure as failure:
        if failure.status not in (401, 403):
            raise
        return Health(status="ok", version=_VERSION)


def _told(routing: model_pb.GetRoutingResponse) -> Health:
    chain = [Choice(provider=each, model=routing.default_model) for each in routing.providers]
    return Health(
        status="ok",
        version=_VERSION,
        service_version=routing.version,
        providers=[Provider(name=each) for each in routing.providers],
        routing=Routing(default=chain[0], fallback=chain[1:]) if chain else None,
        audit=Audit(
            enabled=routing.audit.enabled,
            request_bodies=routing.audit.request_bodies,
            response_bodies=routing.audit.response_bodies,
        ),
    )


@router.get("/gateway/audit", responses=told(audit_pb.ListAuditEventsResponse))
async def list_audit_events(
    call: Asked,
    limit: Annotated[int, Query(ge=1, le=1000)] = 50,
    page_token: str = "",
    order_by: Literal["seq", "seq desc"] = "seq desc",
    tenant: str = "",
    actor: str = "",
    action_prefix: str = "",
    session_id: str = "",
    start_time: Moment | None = None,
    end_time: Moment | None = None,
) -> Response:
    """Who did what, the latest first; for the scope `admin`."""
    request = audit_pb.ListAuditEventsRequest(
        page_size=limit, page_token=page_token, order_by=order_by
    )
    wanted = request.filter
    wanted.tenant, wanted.actor = tenant, actor
    wanted.action_prefix, wanted.session_id = action_prefix, session_id
    if start_time is not None:
        wanted.start_time.FromDatetime(start_time)
    if end_time is not None:
        wanted.end_time.FromDatetime(end_time)
    return await _listed(call, request)


async def _listed(call: Call, request: audit_pb.ListAuditEventsRequest) -> Response:
    try:
        return await answer(await call.unary("audit", "ListAuditEvents", request))
    except Failure as failure:
        raise failure.without("filter.") from failure
