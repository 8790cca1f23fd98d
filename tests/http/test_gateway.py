"""What the gateway says of itself: to everybody, to callers, to operators, to Prometheus."""

import asyncio
import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import aclosing
from pathlib import Path
from typing import Any

import httpx
import pytest
from conversing import Model
from prometheus_client.parser import text_string_to_metric_families
from running import events_of, faking
from shared import ServiceThread, shared_service
from shimming import Shim, shim_to
from tenancies import tenant
from warmline_client import connect
from warmline_http._metrics import Metrics, Watched
from warmline_http._sse import EventStream, event

pytestmark = pytest.mark.shared_service


class Keys:
    """A caller and an operator."""

    def __init__(self) -> None:
        acme, self.caller = tenant("acme")
        other, self.operator = tenant("ops", scopes=["chat", "read", "admin"])
        self.settings = [acme, other]

    def header(self, name: str) -> dict[str, str]:
        """What one of them shows."""
        return {"authorization": f"Bearer {getattr(self, name)}"}


@pytest.fixture(scope="module")
def keys() -> Keys:
    """Who may call."""
    return Keys()


@pytest.fixture(scope="module")
def service(keys: Keys) -> Iterator[ServiceThread]:
    """One for all tests here."""
    with tempfile.TemporaryDirectory() as folder:
        changes: dict[str, Any] = {"cli": faking(Path(folder)), "tenants": keys.settings}
        changes["audit"] = {"request_bodies": True}
        with shared_service(Model(), **changes) as thread:
            yield thread


@pytest.fixture
async def shim(service: ServiceThread) -> AsyncIterator[Shim]:
    """A shim in front of it."""
    async with shim_to(f"127.0.0.1:{service.port}") as made:
        yield made


async def test_the_index_leads_to_everything(shim: Shim) -> None:
    """Each link leads somewhere, and each route of the API's page is told."""
    index = (await shim.http.get("/")).json()
    assert (index["name"], index["version"]) == ("warmline", "0.1.0")
    document = (await shim.http.get("/openapi.json")).json()
    paths = {route["path"] for route in index["routes"]}
    assert paths == set(document["paths"])
    assert all(route["summary"] for route in index["routes"])
    for link in index["links"].values():
        assert (await shim.http.get(link)).status_code in (200, 401), link


async def test_the_docs_page_needs_nobody_else(shim: Shim) -> None:
    """What it loads comes from the shim."""
    page = (await shim.http.get("/docs")).text
    sources = [part.split('"')[0] for part in page.split('src="')[1:]]
    assert sources
    for source in sources:
        assert source.startswith("/")
        assert (await shim.http.get(source)).status_code == 200


@pytest.mark.parametrize("path", ["/health", "/gateway/health"])
async def test_health_tells_callers_more(shim: Shim, keys: Keys, path: str) -> None:
    """Everybody that it runs; callers where their messages go and what is kept of them."""
    assert set((await shim.http.get(path)).json()) == {"status", "version"}
    told = (await shim.http.get(path, headers=keys.header("caller"))).json()
    assert told["status"] == "ok"
    assert told["providers"] == [{"name": "loopback"}]
    assert told["routing"]["default"]["provider"] == "loopback"
    assert told["routing"]["default"]["model"]
    assert told["routing"]["fallback"] == []
    audit = {"enabled": True, "request_bodies": True, "response_bodies": False}
    assert told["audit"] == audit


async def test_health_without_a_service() -> None:
    """503, and who runs: load balancers look at the status alone."""
    async with shim_to("127.0.0.1:1") as shim:
        answer = await shim.http.get("/health")
    assert answer.status_code == 503
    assert answer.json() == {"status": "unavailable", "version": "0.1.0"}


async def test_metrics_sum_up_what_was_used(shim: Shim, service: ServiceThread, keys: Keys) -> None:
    """In total, by provider and by model; the last turns with how they ended."""
    async with connect(f"127.0.0.1:{service.port}", api_key=keys.caller) as client:
        async with client.chat(model="haiku") as good:
            await events_of(good, "hello")
        async with client.chat() as bad:
            await events_of(bad, "!error 400")
    told = (await shim.http.get("/gateway/metrics", headers=keys.header("caller"))).json()
    assert set(told) == {"summary", "by_provider", "by_model", "recent"}
    ends = {turn["session_id"]: turn["outcome"] for turn in told["recent"]}
    assert ends == {good.session_id: "completed", bad.session_id: "FIELD_INVALID"}
    (turn,) = [each for each in told["recent"] if each["session_id"] == good.session_id]
    assert "haiku" in turn["model"]
    assert turn["latency"]
    by_provider = told["by_provider"].values()
    assert sum(each["turns"] for each in by_provider) == told["summary"]["turns"]
    refused = await shim.http.get("/gateway/metrics?start_day=x", headers=keys.header("caller"))
    assert refused.json()["error"]["fields"].keys() == {"start_day"}


async def test_the_audit_log_is_the_operators(shim: Shim, keys: Keys) -> None:
    """`limit` of the latest first; by filter; nothing for others."""
    path = "/gateway/audit"
    await shim.http.get("/v1/sessions", headers={"authorization": "Bearer wl_no_no"})
    events = (await shim.http.get(f"{path}?limit=2", headers=keys.header("operator"))).json()
    numbers = [int(each["seq"]) for each in events["events"]]
    assert numbers == sorted(numbers, reverse=True)
    assert len(numbers) == 2
    wanted = {"action_prefix": "auth.", "order_by": "seq", "start_time": "2020-01-01T00:00:00Z"}
    found = await shim.http.get(path, params=wanted, headers=keys.header("operator"))
    actions = {each["action"] for each in found.json().get("events", [])}
    assert actions <= {"auth.failed"}
    for header, status in ((keys.header("caller"), 403), ({}, 401)):
        assert (await shim.http.get(path, headers=header)).status_code == status
    bad = {"tenant": "x" * 200}
    named = await shim.http.get(path, params=bad, headers=keys.header("operator"))
    assert named.json()["error"]["fields"].keys() == {"tenant"}


async def test_a_refusal_keeps_its_reason(shim: Shim, keys: Keys) -> None:
    """Although what is said goes out before the service has answered: gRPC often loses the reason then."""
    said = [{"role": "user", "content": "hi"}]

    async def refused(header: dict[str, str], model: str) -> tuple[int, str]:
        body = {"model": model, "max_tokens": 9, "messages": said}
        answer = await shim.http.post("/v1/messages", json=body, headers=header)
        return answer.status_code, answer.json()["error"]["type"]

    stranger = {"authorization": "Bearer wl_no_no"}
    for _ in range(10):
        answers = await asyncio.gather(
            *(refused(stranger, "haiku") for _ in range(4)),
            *(refused(keys.header("caller"), "none-such") for _ in range(4)),
        )
        assert answers[:4] == [(401, "authentication_error")] * 4
        assert answers[4:] == [(404, "not_found_error")] * 4


async def _samples(shim: Shim) -> dict[tuple[str, ...], float]:
    answer = await shim.http.get("/metrics")
    assert answer.headers["content-type"].startswith("text/plain")
    return {
        (sample.name, *sorted(sample.labels.values())): sample.value
        for family in text_string_to_metric_families(answer.text)
        for sample in family.samples
    }


async def test_prometheus_reads_routes_and_nothing_of_callers(shim: Shim) -> None:
    """A route counts as it is written; what is none counts as one, whatever it was called."""
    await shim.http.get("/livez")
    await shim.http.get("/v1/sessions/nobody-should-read-this")
    await shim.http.request("BREW", "/nobody-should-read-this")
    await shim.http.get("/livez", headers={"host": "nobody-should-read-this"})
    samples = await _samples(shim)
    count = "warmline_http_requests_total"
    assert samples[count, "/livez", "200", "GET"] == 1
    assert samples[count, "/v1/sessions/{session_id}", "401", "GET"] == 1
    assert samples[count, "404", "none", "other"] == 1
    assert samples[count, "403", "GET", "none"] == 1
    assert samples["warmline_http_answer_seconds_count", "/livez", "GET"] == 1
    assert samples["warmline_http_build_info", "0.1.0"] == 1
    assert not [name for name in samples if "nobody-should-read-this" in name]


async def test_streams_and_their_events_are_counted() -> None:
    """A stream while it is open, and each event of it; comments are none."""
    metrics = Metrics()

    async def two() -> Any:
        yield event(b"{}") + event(b"{}", "named", "1")
        yield b": comment\n\n"

    async def app(scope: Any, receive: Any, send: Any) -> None:
        async with aclosing(two()) as source:
            await EventStream(source, heartbeat=60)(scope, receive, send)

    transport = httpx.ASGITransport(Watched(app, metrics))
    async with httpx.AsyncClient(transport=transport, base_url="http://shim") as client:
        await client.get("/")
    assert metrics.registry.get_sample_value("warmline_http_sse_events_total") == 2
    kind = {"kind": "sse"}
    assert metrics.registry.get_sample_value("warmline_http_open_streams", kind) == 0
