"""What no route sees: foreign hosts and pages, bodies that are too large or come too slowly."""

from collections.abc import AsyncIterator
from typing import Any

import pytest
from running import running_service
from shimming import Shim, shim_before, shim_to

BODY = 64 * 1024


@pytest.fixture
async def shim() -> AsyncIterator[Shim]:
    """A shim that pages of one other origin may call; what is behind it is not asked."""
    async with shim_to("127.0.0.1:1", origins=("https://app.example",), body_bytes=BODY) as made:
        yield made


async def test_only_its_own_host_is_served(shim: Shim) -> None:
    """A page that points its own name at the shim gets nothing (DNS rebinding)."""
    names = ("evil.example", "evil.example:80", "127.0.0.1.evil.example", "[::2]", "a b")
    within = ("evil.example:80@localhost", "localhost/x", "localhost?x", "localhost:1:2", "[::1]x")
    for host in (*names, *within):
        answer = await shim.http.get("/livez", headers={"host": host})
        assert answer.status_code == 403
        assert answer.json()["error"]["reason"] == "HOST_NOT_ALLOWED"
    for host in ("localhost", "LOCALHOST:1", "127.0.0.1", "[::1]:9"):
        assert (await shim.http.get("/livez", headers={"host": host})).status_code == 200


@pytest.mark.parametrize(
    "headers",
    [
        {"origin": "https://evil.example"},
        {"origin": "null"},
        {"sec-fetch-site": "cross-site"},
        {"sec-fetch-site": "same-site", "sec-fetch-mode": "navigate"},
    ],
)
async def test_foreign_pages_are_refused(shim: Shim, headers: dict[str, str]) -> None:
    """By their Origin, and where a browser sends none by what it says of the request."""
    answer = await shim.http.get("/livez", headers=headers)
    assert answer.status_code == 403
    assert answer.json()["error"]["reason"] == "ORIGIN_NOT_ALLOWED"
    assert "access-control-allow-origin" not in answer.headers


async def test_a_page_that_is_allowed_may_read_the_answer(shim: Shim) -> None:
    """CORS names that one origin, never `*`; the shim's own pages need none."""
    origin = {"origin": "https://app.example", "sec-fetch-site": "cross-site"}
    answer = await shim.http.get("/livez", headers=origin)
    assert answer.headers["access-control-allow-origin"] == "https://app.example"
    asked = origin | {"access-control-request-method": "POST"}
    preflight = await shim.http.options("/v1/messages", headers=asked)
    assert preflight.status_code == 204
    assert "x-api-key" in preflight.headers["access-control-allow-headers"]
    own = await shim.http.get("/livez", headers={"origin": shim.url})
    assert own.status_code == 200
    assert "access-control-allow-origin" not in own.headers


async def test_a_page_may_use_an_sdk(shim: Shim) -> None:
    """The SDKs' own headers are allowed as they are asked for; what only looks like them is not."""
    asked = {
        "origin": "https://app.example",
        "access-control-request-method": "POST",
        "access-control-request-headers": (
            "x-stainless-os, X-Stainless-Helper-Method,x-other, x-stainless-a_b"
        ),
    }
    preflight = await shim.http.options("/v1/messages", headers=asked)
    names = preflight.headers["access-control-allow-headers"].split(", ")
    assert names[-2:] == ["x-stainless-os", "x-stainless-helper-method"]
    assert "content-type" in names
    assert not {"x-other", "*"} & set(names)


async def test_a_page_may_read_why_it_is_refused(shim: Shim) -> None:
    """Also where no route has seen the request; and which headers an answer has that only we know."""
    origin = {"origin": "https://app.example"}
    body = b"x" * (BODY + 1)
    for kind, status in (("text/plain", 415), ("application/json", 413)):
        headers = origin | {"content-type": kind}
        answer = await shim.http.post("/v1/messages", content=body, headers=headers)
        assert answer.status_code == status
        assert answer.headers["access-control-allow-origin"] == "https://app.example"
        assert "x-warmline-ignored" in answer.headers["access-control-expose-headers"]
        assert answer.headers["vary"] == "origin"


async def test_a_body_is_json(shim: Shim) -> None:
    """Anything else is 415: what a form can send needs no permission of the browser's."""
    for kind in ("text/plain", "application/x-www-form-urlencoded", "multipart/form-data"):
        answer = await shim.http.post("/livez", content=b"{}", headers={"content-type": kind})
        assert (answer.status_code, answer.json()["error"]["reason"]) == (415, "MEDIA_TYPE")


async def test_a_large_body_is_refused_by_name(shim: Shim) -> None:
    """Where its length is said, before it is read."""
    answer = await shim.http.post("/livez", json={"x": "y" * BODY})
    assert answer.status_code == 413
    assert answer.json()["error"]["reason"] == "MESSAGE_TOO_LARGE"


async def test_failures_have_the_shape_of_their_api(shim: Shim) -> None:
    """Anthropic's, OpenAI's and the shim's own, each with the request's id."""
    shapes: dict[str, Any] = {
        "/v1/messages/x/y": lambda told: told["error"]["type"] == "not_found_error",
        "/v1/chat/completions/x": lambda told: told["error"]["code"] == "http_404",
        "/nowhere": lambda told: told["error"]["reason"] == "HTTP_404",
    }
    for path, says in shapes.items():
        answer = await shim.http.get(path, headers={"x-request-id": "mine"})
        assert answer.status_code == 404
        assert says(answer.json())
        assert answer.headers["x-request-id"] == "mine"


async def test_a_service_that_is_gone_is_told() -> None:
    """`/livez` speaks of the shim alone, `/readyz` of the service; `HEAD` is answered as `GET`."""
    async with running_service() as service:
        async with shim_before(service) as shim:
            assert (await shim.http.get("/readyz")).json() == {"status": "ok"}
            for path in ("/health", "/gateway/health", "/livez", "/readyz"):
                head = await shim.http.head(path)
                assert (head.status_code, head.content) == (200, b"")
                assert head.headers["content-type"] == "application/json"
            await service.stop()
            assert (await shim.http.get("/readyz")).status_code == 503
            assert (await shim.http.head("/health")).status_code == 503
            assert (await shim.http.get("/livez")).status_code == 200
