"""Sessions as REST: what SessionService says, and failures that name the field."""

import asyncio
import tempfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from conversing import Model
from running import events_of, faking
from shared import ServiceThread, shared_service
from shimming import Shim, shim_to
from tenancies import tenant
from warmline.v1 import session_config_pb2 as config_pb
from warmline_client import Client, connect

pytestmark = pytest.mark.shared_service

NOBODYS = "01234567-89ab-cdef-0123-456789abcdef"
NAME = 'a b/\u00fc "x".html'


class Tenants:
    """Two tenants, and the key of each."""

    def __init__(self) -> None:
        acme, self.acme = tenant("acme")
        other, self.other = tenant("other", scopes=["chat", "read", "admin"])
        self.settings = [acme, other]


@pytest.fixture(scope="module")
def tenants() -> Tenants:
    """Who may call."""
    return Tenants()


@pytest.fixture(scope="module")
def service(tenants: Tenants) -> Iterator[ServiceThread]:
    """One for all tests here."""
    with tempfile.TemporaryDirectory() as folder:
        changes: dict[str, Any] = {"cli": faking(Path(folder)), "tenants": tenants.settings}
        with shared_service(Model(), **changes) as thread:
            yield thread


@pytest.fixture
async def shim(service: ServiceThread, tenants: Tenants) -> AsyncIterator[Shim]:
    """A shim in front of it; its client shows the key of `acme`."""
    async with shim_to(f"127.0.0.1:{service.port}") as made:
        made.http.headers["authorization"] = f"Bearer {tenants.acme}"
        yield made


@pytest.fixture
async def client(service: ServiceThread, tenants: Tenants) -> AsyncIterator[Client]:
    """The same caller, by gRPC."""
    async with connect(f"127.0.0.1:{service.port}", api_key=tenants.acme) as made:
        yield made


def field_of(answer: httpx.Response) -> str:
    """The one field that a refusal names."""
    assert answer.status_code == 400, answer.text
    error = answer.json()["error"]
    assert error["reason"] == "FIELD_INVALID"
    (name,) = error["fields"]
    return str(name)


async def test_a_session_is_listed_shown_forked_and_removed(shim: Shim, client: Client) -> None:
    """By the names of the proto files; a fork asked for twice under one key is one."""
    async with client.chat(model="haiku") as chat:
        last = (await events_of(chat, "list me"))[-1]
    listed = (await shim.http.get("/v1/sessions", params={"title_contains": "LIST"})).json()
    (session,) = listed["sessions"]
    assert (session["id"], session["turn_count"]) == (chat.session_id, 1)
    path = f"/v1/sessions/{chat.session_id}"
    assert (await shim.http.get(path)).json()["session"]["title"] == "list me"
    fork = {"turn_id": last.turn_id, "idempotency_key": "one"}
    made = (await shim.http.post(f"{path}/fork", json=fork)).json()["session"]
    assert made["forked_from_session_id"] == chat.session_id
    key = {"idempotency-key": "one"}
    again = await shim.http.post(f"{path}/fork", json={"turn_id": last.turn_id}, headers=key)
    assert again.json()["session"]["id"] == made["id"]
    assert (await shim.http.delete(path)).json() == {}
    gone = await shim.http.get(path)
    assert (gone.status_code, gone.json()["error"]["reason"]) == (404, "SESSION_NOT_FOUND")


async def test_pages_follow_one_another(shim: Shim, client: Client) -> None:
    """Each session once, in the order that was asked for."""
    made = []
    for number in range(3):
        async with client.chat() as chat:
            await events_of(chat, f"paged {number}")
            made.append(chat.session_id)
    wanted: dict[str, Any] = {
        "page_size": 2,
        "order_by": "create_time",
        "title_contains": "paged",
        "updated_after": "2020-01-01T00:00:00Z",
    }
    first = (await shim.http.get("/v1/sessions", params=wanted)).json()
    rest = wanted | {"page_token": first["next_page_token"]}
    second = (await shim.http.get("/v1/sessions", params=rest)).json()
    assert [each["id"] for each in first["sessions"] + second["sessions"]] == made
    assert "next_page_token" not in second


async def test_anothers_session_is_none(shim: Shim, client: Client, tenants: Tenants) -> None:
    """The caller is passed on: a stranger's key finds nothing, and no key is refused as such."""
    async with client.chat() as chat:
        await events_of(chat, "mine")
    path = f"/v1/sessions/{chat.session_id}"
    for header, status, reason in (
        ({"x-api-key": tenants.other, "authorization": ""}, 404, "SESSION_NOT_FOUND"),
        ({"authorization": f"Bearer {tenants.acme}x"}, 401, "KEY_INVALID"),
        ({"authorization": ""}, 401, "KEY_INVALID"),
    ):
        answer = await shim.http.get(path, headers=header)
        assert (answer.status_code, answer.json()["error"]["reason"]) == (status, reason)


async def test_an_interrupt_says_what_it_did(shim: Shim, client: Client) -> None:
    """Whether something ran or not."""
    async with client.chat() as chat:
        turn = await chat.send("!hang")
        path = f"/v1/sessions/{chat.session_id}"
        async with asyncio.timeout(90):
            while (await anext(aiter(turn))).WhichOneof("kind") != "text_delta":
                pass
        stopped = (await shim.http.delete(f"{path}/turn")).json()
        assert stopped == {"outcome": "OUTCOME_STOPPED", "turn_id": turn.id}
        await turn.completed()
        idle = (await shim.http.delete(f"{path}/turn")).json()
        assert idle == {"outcome": "OUTCOME_NOTHING_RUNNING"}


async def test_an_approval_is_answered(shim: Shim, client: Client) -> None:
    """It is in the session while it is open; nobody waits for it twice."""
    config = config_pb.SessionConfig()
    config.approvals.mode = config_pb.Approvals.MODE_STREAM
    async with client.chat(config=config) as chat:
        turn = await chat.send("!ask")
        async with asyncio.timeout(90):
            while (await anext(aiter(turn))).WhichOneof("kind") != "approval_requested":
                pass
        path = f"/v1/sessions/{chat.session_id}"
        (asked,) = (await shim.http.get(path)).json()["session"]["open_approvals"]
        place = f"{path}/approvals/{asked['approval_id']}"
        said = {"allow": {"updated_input": {"command": "pwd"}}}
        assert (await shim.http.post(place, json=said)).json() == {}
        await turn.completed()
        late = await shim.http.post(place, json={"deny": {"message": "no"}})
    assert (late.status_code, late.json()["error"]["reason"]) == (404, "APPROVAL_NOT_FOUND")


async def test_events_come_page_by_page(shim: Shim, client: Client) -> None:
    """Each once, up to the end; kinds that are not asked for are left out."""
    async with client.chat() as chat:
        await events_of(chat, "one")
        await events_of(chat, "two")
    path = f"/v1/sessions/{chat.session_id}/events"
    whole = (await shim.http.get(path)).json()
    assert "next_after" not in whole
    paged, after = [], "0"
    while after:
        page = (await shim.http.get(path, params={"limit": 2, "after": after})).json()
        paged += page["events"]
        after = page.get("next_after", "")
    assert paged == whole["events"]
    ends = (await shim.http.get(path, params={"kinds": ["turn_completed"]})).json()["events"]
    assert [each["turn_completed"]["result"] for each in ends] == ["echo: one", "echo: two"]


async def test_a_file_is_saved_and_never_shown(shim: Shim, client: Client) -> None:
    """As it is, under its own name, with nothing that a browser would run; an empty one too."""
    data = bytes(range(256)) * 8192
    files = [
        config_pb.WorkspaceFile(path=NAME, data=data),
        config_pb.WorkspaceFile(path="empty"),
    ]
    config = config_pb.SessionConfig(workspace=config_pb.Workspace(files=files))
    async with client.chat(config=config) as chat:
        await events_of(chat, "hello")
    path = f"/v1/sessions/{chat.session_id}/files"
    listed = (await shim.http.get(path)).json()["files"]
    assert [each["path"] for each in listed] == [NAME, "empty"]
    answer = await shim.http.get(httpx.URL(path=f"{path}/{NAME}"))
    assert answer.content == data
    assert answer.headers["content-disposition"].startswith('attachment; filename="___x_.html"')
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.headers["content-type"] == "application/octet-stream"
    assert (await shim.http.get(f"{path}/empty")).content == b""
    missing = await shim.http.get(f"{path}/missing")
    assert (missing.status_code, missing.json()["error"]["reason"]) == (404, "FILE_NOT_FOUND")
    for bad in ("..%2f..%2fetc%2fpasswd", "a%00b", "%2fetc"):
        assert field_of(await shim.http.get(f"{path}/{bad}")) == "path"


async def test_an_export_is_an_import(shim: Shim, client: Client) -> None:
    """What one gives the other takes: transcript and files."""
    files = [config_pb.WorkspaceFile(path="kept", data=b"x" * 100)]
    config = config_pb.SessionConfig(workspace=config_pb.Workspace(files=files))
    async with client.chat(config=config) as chat:
        await events_of(chat, "remember this")
    export = await shim.http.get(f"/v1/sessions/{chat.session_id}/export")
    assert export.status_code == 200
    made = await shim.http.post("/v1/sessions/import", json=export.json())
    session = made.json()["session"]
    assert session["id"] != chat.session_id
    path = f"/v1/sessions/{session['id']}"
    assert (await shim.http.get(f"{path}/files/kept")).content == b"x" * 100
    again = (await shim.http.get(f"{path}/export")).json()["parts"]
    assert [each for each in again if "transcript" in each]
    wrong = await shim.http.post("/v1/sessions/import", json={"parts": export.json()["parts"][1:]})
    assert (wrong.status_code, wrong.json()["error"]["reason"]) == (400, "FRAME_OUT_OF_ORDER")


async def test_usage_is_the_callers(shim: Shim) -> None:
    """Another's needs the scope `admin`."""
    assert "total" in (await shim.http.get("/v1/usage")).json()
    other = await shim.http.get("/v1/usage", params={"tenant_id": "other"})
    assert (other.status_code, other.json()["error"]["reason"]) == (403, "POLICY_DENIED")


@pytest.mark.parametrize(
    ("path", "field"),
    [
        ("/v1/sessions?page_size=-1", "page_size"),
        ("/v1/sessions?page_size=9999999999", "page_size"),
        ("/v1/sessions?page_token=x", "page_token"),
        ("/v1/sessions?order_by=title", "order_by"),
        ("/v1/sessions?updated_after=yesterday", "updated_after"),
        ("/v1/sessions?updated_before=9999-12-31T23:59:59-12:00", "updated_before"),
        (f"/v1/sessions?title_contains={'x' * 81}", "title_contains"),
        ("/v1/sessions?forked_from_session_id=x", "forked_from_session_id"),
        ("/v1/sessions/x", "session_id"),
        (f"/v1/sessions/{NOBODYS}/events?kinds=x", "kinds[0]"),
        (f"/v1/sessions/{NOBODYS}/events?after=-1", "after"),
        (f"/v1/sessions/{NOBODYS}/events?limit=0", "limit"),
        ("/v1/usage?start_day=x", "start_day"),
    ],
)
async def test_a_bad_parameter_is_named(shim: Shim, path: str, field: str) -> None:
    """By the name that it has in the query."""
    assert field_of(await shim.http.get(path)) == field


async def test_a_bad_body_is_named(shim: Shim) -> None:
    """Also what JSON can hold and the API cannot carry."""
    path = f"/v1/sessions/{NOBODYS}/approvals/{NOBODYS}"
    deep: dict[str, Any] = {}
    for _ in range(90):
        deep = {"x": deep}
    for body, field in (
        ({}, "decision"),
        ({"allow": {}, "deny": {}}, "decision"),
        ({"allow": {"remember": "perhaps"}}, "allow.remember"),
        ({"allow": {"more": 1}}, "allow.more"),
        ({"allow": {"updated_input": deep}}, "allow.updated_input"),
        ({"allow": {"updated_input": {"x": 10**400}}}, "allow.updated_input"),
        ({"deny": {"message": 7}}, "deny.message"),
    ):
        assert field_of(await shim.http.post(path, json=body)) == field
    json = {"content-type": "application/json"}
    for text in ('{"allow":{"updated_input":{"a":"\\ud800"}}}', '{"deny":{"message":"\\ud800"}}'):
        answer = await shim.http.post(path, content=text, headers=json)
        assert field_of(answer) in ("allow.updated_input", "deny.message")
    large = '{"session":{"config":{"limits":{"maxBudgetUsd":1%s}}}}' % ("0" * 400)
    parts = ("1", '{"\\ud800":{}}', '{"session":{"title":"\\ud800"}}', large)
    for text in ("[" * 100_000, "7", "", *(f'{{"parts":[{part}]}}' for part in parts)):
        answer = await shim.http.post("/v1/sessions/import", content=text, headers=json)
        assert field_of(answer) in ("body", "parts", "parts[0]")
