"""Whatever the API's page allows to be sent, and much that it does not: no answer is a fault of ours."""

import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import requests
import schemathesis
from conversing import Model
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from running import faking
from schemathesis import GenerationMode
from shared import shared_service
from shimming import shim_in_a_thread
from tenancies import tenant
from warmline_http._app import routes
from warmline_http._settings import HttpSettings

pytestmark = [pytest.mark.shared_service, pytest.mark.timeout(300)]

# Of each route, as its parameters and body may be, and as they may not.
_EXAMPLES = 10
_TIMEOUT = 60.0
_DOCUMENT = routes(HttpSettings()).openapi()
_SCHEMA: Any = schemathesis.openapi.from_dict(_DOCUMENT)
_OPERATIONS = {found.ok().label: found.ok() for found in _SCHEMA.get_all_operations()}


def _cases() -> Iterator[tuple[str, GenerationMode]]:
    for label in _OPERATIONS:
        method, path = label.split(" ", 1)
        about = _DOCUMENT["paths"][path][method.lower()]
        yield label, GenerationMode.POSITIVE
        # In a path any text is as it may be.
        if "requestBody" in about or any(p["in"] != "path" for p in about.get("parameters", ())):
            yield label, GenerationMode.NEGATIVE


class Target:
    """A shim, who calls it, and a session that there is."""

    def __init__(self, url: str, key: str) -> None:
        self.url = url
        self.http = requests.Session()
        self.http.headers["authorization"] = f"Bearer {key}"
        part = {"session": {"title": "kept"}}
        made = httpx.post(
            f"{url}/v1/sessions/import", json={"parts": [part]}, headers=dict(self.http.headers)
        )
        self.session_id = made.json()["session"]["id"]

    def status(self, case: Any, *, known: bool) -> int:
        """What a case is answered by; `known`: in the session that there is, which nobody may remove."""
        if known and "session_id" in case.path_parameters and case.method != "DELETE":
            case.path_parameters["session_id"] = self.session_id
        sent = case.as_transport_kwargs(base_url=self.url)
        # A stream may have no end.
        with self.http.request(**sent, stream=True, timeout=_TIMEOUT) as answer:
            return answer.status_code


def _deep(levels: int) -> dict[str, Any]:
    nested: dict[str, Any] = {}
    for _ in range(levels):
        nested = {"x": nested}
    return nested


def _message(content: Any, **more: Any) -> dict[str, Any]:
    said = [{"role": "user", "content": content}]
    return {"model": "haiku", "max_tokens": 9, "messages": said} | more


def _tool(**about: Any) -> dict[str, Any]:
    schema = {"type": "object", "properties": _deep(about.pop("levels", 0))}
    return _message("x", tools=[{"name": "t", "input_schema": schema | about}])


# What the generators do not think of.
_HALF = "\ud800"
UNSPEAKABLE = [
    _message(_HALF),
    _message([{"type": "text", "text": _HALF}]),
    _message("x", system=_HALF),
    _message("x", model=_HALF),
    _tool(description=_HALF),
    *(_tool(levels=levels) for levels in (30, 40, 90, 400)),
    _message(
        [{"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "é"}}]
    ),
]


@pytest.fixture(scope="module")
def target() -> Iterator[Target]:
    """A service for all tests here, and a shim in front of it."""
    operator, key = tenant("ops", scopes=["chat", "read", "admin"])
    with (
        tempfile.TemporaryDirectory() as folder,
        shared_service(Model(), cli=faking(Path(folder)), tenants=[operator]) as service,
        shim_in_a_thread(f"127.0.0.1:{service.port}") as url,
    ):
        made = Target(url, key)
        yield made
        made.http.close()


@pytest.mark.parametrize(("operation", "mode"), list(_cases()))
def test_no_request_is_answered_by_a_fault(
    target: Target, operation: str, mode: GenerationMode
) -> None:
    """Each has its answer, or a failure that says what is wrong with the request."""
    cases = _OPERATIONS[operation].as_strategy(generation_mode=mode)

    @settings(
        max_examples=_EXAMPLES,
        derandomize=True,
        database=None,
        deadline=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(case=cases, known=st.booleans())
    def ask(case: Any, *, known: bool) -> None:
        status = target.status(case, known=known)
        assert status < 500, case.as_curl_command()

    ask()


@pytest.mark.parametrize("body", UNSPEAKABLE, ids=range(len(UNSPEAKABLE)))
def test_what_no_message_can_hold_is_the_callers_fault(target: Target, body: Any) -> None:
    """JSON says more than the API can carry."""
    answer = target.http.post(f"{target.url}/v1/messages", json=body, timeout=_TIMEOUT)
    assert answer.status_code == 400
    assert answer.json()["error"]["type"] == "invalid_request_error"
