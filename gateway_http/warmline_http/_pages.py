"""The pages that the shim itself has, `/chat` and `/dashboard`: files of the package alone."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from importlib.resources import files
from typing import Annotated

from fastapi import APIRouter, Header
from starlette.responses import Response

from warmline_http._failure import Failure

router = APIRouter(include_in_schema=False)

_TYPES = {
    "css": "text/css; charset=utf-8",
    "html": "text/html; charset=utf-8",
    "js": "text/javascript; charset=utf-8",
}
# Nothing but these files runs, and no text becomes HTML, even if a page has a fault.
_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src data:; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'; "
    "trusted-types 'none'"
)
_HEADERS = {
    "content-security-policy": _POLICY,
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "cache-control": "no-cache",
}


def _read() -> Mapping[str, bytes]:
    """Every page and what belongs to it, by name."""
    folder = files("warmline_http") / "pages"
    return {
        file.name: file.read_bytes()
        for file in folder.iterdir()
        if file.name.rpartition(".")[2] in _TYPES
    }


_FILES = _read()


@router.get("/chat")
async def chat() -> Response:
    """A page to chat on."""
    return _answer("chat.html")


@router.get("/dashboard")
async def dashboard() -> Response:
    """A page for operators."""
    return _answer("dashboard.html")


@router.get("/pages/{name}")
async def page(name: str, if_none_match: Annotated[str, Header()] = "") -> Response:
    """What belongs to a page."""
    if name not in _FILES:
        raise Failure(404, "HTTP_404", "Not Found")
    return _answer(name, if_none_match)


def _answer(name: str, known: str = "") -> Response:
    content = _FILES[name]
    tag = f'"{hashlib.sha256(content).hexdigest()[:32]}"'
    headers = _HEADERS | {"etag": tag}
    if known == tag:
        return Response(status_code=304, headers=headers)
    return Response(content, headers=headers, media_type=_TYPES[name.rpartition(".")[2]])
