"""Whether it runs, and whether the service behind it takes calls."""

from __future__ import annotations

from typing import Literal

from fastapi import APIRouter
from fastapi.responses import JSONResponse
from pydantic import BaseModel

from warmline_http._call import Asked

router = APIRouter(tags=["health"])


class Alive(BaseModel):
    """The shim runs."""

    status: Literal["ok"] = "ok"


class Ready(BaseModel):
    """Whether the service takes calls."""

    status: Literal["ok", "unavailable"]


@router.head("/livez", include_in_schema=False)
@router.get("/livez")
async def livez() -> Alive:
    """The shim runs; says nothing of the service."""
    return Alive()


@router.head("/readyz", include_in_schema=False)
@router.get("/readyz", responses={503: {"model": Ready}})
async def readyz(call: Asked) -> Ready:
    """200 while the service takes calls, 503 while it cannot be reached or drains."""
    if await call.link.serving():
        return Ready(status="ok")
    return JSONResponse({"status": "unavailable"}, 503)  # type: ignore[return-value]  # FastAPI passes it on
