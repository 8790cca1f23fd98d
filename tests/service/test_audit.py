"""What the audit log says of what callers do, with the real CLI; and how operators ask for it."""

import asyncio
import io
import json
from collections.abc import AsyncIterator, Iterator
from typing import Any

import grpc
import msgspec
import pytest
from conversing import Model
from google.protobuf.json_format import MessageToDict, ParseDict
from google.protobuf.timestamp_pb2 import Timestamp
from parking import say, told_before
from shared import ServiceThread, shared_service
from tenancies import tenant
from warmline.v1 import audit_service_pb2 as pb
from warmline.v1 import audit_service_pb2_grpc as pb_grpc
from warmline.v1 import session_config_pb2 as config_pb
from warmline_client import Client, Turn, WarmlineError, connect

pytestmark = [pytest.mark.real_cli, pytest.mark.shared_service]

_ACME, KEY = tenant("acme", scopes=["chat", "read", "admin"])
_READER, READER = tenant("reader", scopes=["read"])
ACTOR = f"key {KEY.split('_')[1]}"
# Looks like a secret, in each place where one can come in.
CANARY = "wJalrXUtnFEMIK7MDENGbPxRfiCY"
WRITE = '::tool Write {"file_path":"f.txt","content":"x"}\n::say done'


@pytest.fixture(scope="module")
def thread() -> Iterator[ServiceThread]:
    """The module's service, whose tenants have keys."""
    with shared_service(
        Model(),
        pool={"min_spares": 0, "max_spares": 0},
        tenants=[_ACME, _READER],
        mcp={"allow_networks": ["127.0.0.0/8"], "allow_http": True, "connect_timeout": 1},
    ) as thread:
        yield thread


@pytest.fixture
async def client(thread: ServiceThread) -> AsyncIterator[Client]:
    """A client of acme's."""
    async with connect(f"127.0.0.1:{thread.port}", api_key=KEY) as client:
        yield client


class Operator:
    """Asks for the audit log."""

    def __init__(self, thread: ServiceThread, channel: grpc.aio.Channel) -> None:
        self._thread = thread
        self._stub = pb_grpc.AuditServiceStub(channel)

    async def page(self, key: str = KEY, **request: Any) -> pb.ListAuditEventsResponse:
        """One page, of what was recorded until now."""
        log = self._thread.service._audit
        assert log is not None
        writing = asyncio.run_coroutine_threadsafe(log.written(), self._thread._loop)
        assert await asyncio.wrap_future(writing)
        metadata = (("authorization", f"Bearer {key}"),)
        asked = pb.ListAuditEventsRequest(**request)
        page: pb.ListAuditEventsResponse = await self._stub.ListAuditEvents(
            asked, metadata=metadata
        )
        return page

    async def events(self, **wanted: Any) -> list[pb.AuditEvent]:
        """The events that a filter wants, the oldest first."""
        wants = pb.AuditFilter(**wanted)
        return list((await self.page(filter=wants, order_by="seq", page_size=1000)).events)


@pytest.fixture
async def operator(thread: ServiceThread) -> AsyncIterator[Operator]:
    """Somebody with the scope `admin`."""
    async with grpc.aio.insecure_channel(f"127.0.0.1:{thread.port}") as channel:
        yield Operator(thread, channel)


def _config(**fields: Any) -> config_pb.SessionConfig:
    return ParseDict(fields, config_pb.SessionConfig())


ASKING = _config(approvals={"mode": "MODE_STREAM"})


def _detail(event: pb.AuditEvent) -> dict[str, Any]:
    return MessageToDict(event.detail)


async def _answered(turn: Turn, chat: Any, **decision: Any) -> None:
    """Answer the one thing that a turn asks, and wait for its end."""
    async with asyncio.timeout(60):
        async for event in turn:
            if event.HasField("approval_requested"):
                asked = event.approval_requested.approval_id
                if "deny" in decision:
                    await chat.deny(asked, decision["deny"])
                else:
                    await chat.allow(asked, **decision)


async def test_a_turn_leaves_who_sent_it_and_what_it_cost(
    client: Client, operator: Operator
) -> None:
    """In the order in which it happened, by the key's id, without the text."""
    async with client.chat() as chat:
        events = await say(chat, "hello there")
        session = chat.session_id
    completed = events[-1].turn_completed
    created, submitted, used = await operator.events(session_id=session)
    assert (created.action, submitted.action) == ("session.created", "turn.submitted")
    for event in (created, submitted, used):
        assert (event.tenant, event.actor) == ("acme", ACTOR)
        assert event.request_id == created.request_id != ""
    assert submitted.turn_id == used.turn_id == events[-1].turn_id
    assert (used.action, used.outcome) == ("turn.model_usage", "end_turn")
    said = _detail(used)
    assert said["requests"] == completed.model_requests == 1
    assert [each["output"] for each in said["models"].values()] == [completed.usage.output_tokens]
    assert said["cost_usd"] == pytest.approx(completed.usage.cost_usd, abs=1e-6)
    assert "hello" not in str([created, submitted, used])


async def test_a_tool_that_was_allowed_and_one_that_was_not(
    client: Client, operator: Operator
) -> None:
    """By whom, and what the tool was to do."""
    async with client.chat(config=ASKING) as chat:
        await _answered(await chat.send(WRITE), chat)
        await _answered(await chat.send(WRITE), chat, deny="no")
        changing = await chat.send('::tool Bash {"command":"touch a"}\n::say done')
        await _answered(changing, chat, updated_input={"command": "echo changed"})
        session = chat.session_id
    allowed, denied, changed = await operator.events(session_id=session, action_prefix="tool.")
    assert (allowed.action, allowed.outcome, allowed.actor) == ("tool.allowed", "allowed", ACTOR)
    said = _detail(allowed)
    assert (said["tool"], said["by"]) == ("Write", "approval")
    assert said["input"] == {"file_path": "f.txt", "content": "x"}
    assert (denied.action, denied.outcome, denied.actor) == ("tool.denied", "denied", ACTOR)
    assert (changed.action, _detail(changed)["changed"]) == ("tool.allowed", True)
    assert _detail(changed)["input"] == {"command": "echo changed"}


async def test_what_the_rules_decide_is_kept_too(client: Client, operator: Operator) -> None:
    """A tool that needs no yes, one that fails, and one to which nobody can say yes."""
    async with client.chat() as chat:
        await say(chat, '::tool Bash {"command":"echo hi"}\n::say done')
        await say(chat, '::tool Read {"file_path":"missing.txt"}\n::say done')
        await say(chat, WRITE)
        session = chat.session_id
    events = await operator.events(session_id=session, action_prefix="tool.")
    told = [(e.action, e.outcome, _detail(e)["tool"], _detail(e)["by"]) for e in events]
    assert told == [
        ("tool.allowed", "ok", "Bash", "rules"),
        ("tool.allowed", "failed", "Read", "rules"),
        ("tool.denied", "denied", "Write", "rules"),
    ]
    assert {event.actor for event in events} == {ACTOR}


async def test_an_approval_that_nobody_gives_is_the_services_no(
    client: Client, operator: Operator
) -> None:
    """It expires: the caller has decided nothing."""
    config = _config(approvals={"mode": "MODE_STREAM", "timeout": "1s"})
    async with client.chat(config=config) as chat:
        await say(chat, WRITE)
        session = chat.session_id
    (event,) = await operator.events(session_id=session, action_prefix="tool.")
    assert (event.action, event.outcome, event.actor) == ("tool.denied", "expired", "service")


async def test_what_becomes_of_a_session(client: Client, operator: Operator) -> None:
    """Made, forked, taken elsewhere, brought back and deleted; each by whom."""
    async with client.chat() as chat:
        await say(chat, "hi")
        session = chat.session_id
    fork = (await client.fork(session)).id
    file = io.BytesIO()
    await client.export_to(session, file)
    file.seek(0)
    imported = (await client.import_from(file)).id
    await client.delete(session)
    told = {name: await operator.events(session_id=name) for name in (session, fork, imported)}
    actions = [event.action for event in told[session] if event.action.startswith("session.")]
    assert actions == ["session.created", "session.exported", "session.deleted"]
    async with client.chat(history=told_before("Ada")) as chat:
        (begun,) = await operator.events(session_id=chat.session_id)
        assert begun.action == "session.created"
    (forked,) = told[fork]
    assert (forked.action, _detail(forked)["from"]) == ("session.forked", session)
    assert [event.action for event in told[imported]] == ["session.imported"]
    everything = [event for events in told.values() for event in events]
    assert {(event.tenant, event.actor) for event in everything} == {("acme", ACTOR)}


async def test_a_bad_key_is_kept_once_a_minute(thread: ServiceThread, operator: Operator) -> None:
    """Where it came from and why it was refused, but nothing of the key."""
    for _ in range(5):
        async with connect(f"127.0.0.1:{thread.port}", api_key=KEY + CANARY) as stranger:
            with pytest.raises(WarmlineError, match="KEY_INVALID"):
                await stranger.models()
    (event,) = await operator.events(action_prefix="auth.failed")
    assert (event.outcome, event.actor, event.tenant) == ("KEY_INVALID", "unknown", "")
    method = "/warmline.v1.ModelService/ListModels"
    assert _detail(event) == {"peer": "127.0.0.1", "method": method}


async def test_what_is_not_allowed_is_kept(
    thread: ServiceThread, client: Client, operator: Operator
) -> None:
    """A key without the scope, and a session that asks for too much."""
    async with connect(f"127.0.0.1:{thread.port}", api_key=READER) as reader:
        with pytest.raises(WarmlineError, match="POLICY_DENIED"):
            await reader.chat().__aenter__()
    config = _config(setting_sources=["SETTING_SOURCE_PROJECT"])
    with pytest.raises(WarmlineError, match="POLICY_DENIED"):
        await client.chat(config=config).__aenter__()
    refused = await operator.events(action_prefix="policy.refused", tenant="reader")
    assert ("POLICY_DENIED", "chat") in [(e.outcome, _detail(e)["scope"]) for e in refused]
    (asked,) = await operator.events(action_prefix="policy.refused", tenant="acme")
    assert asked.actor == ACTOR
    assert "may run commands" in _detail(asked)["message"]


async def test_events_are_listed_page_by_page(client: Client, operator: Operator) -> None:
    """From either end, each once; and who looks is recorded too."""
    async with client.chat() as chat:
        await say(chat, "one")
        await say(chat, "two")
        session = chat.session_id
    wanted = pb.AuditFilter(session_id=session)
    for order in ("seq", "seq desc"):
        found: list[int] = []
        token = ""
        while not found or token:
            page = await operator.page(filter=wanted, order_by=order, page_size=2, page_token=token)
            assert 1 <= len(page.events) <= 2
            found += [event.seq for event in page.events]
            token = page.next_page_token
        assert len(found) == 5
        assert found == sorted(set(found), reverse=order == "seq desc")
    looked = (await operator.events(action_prefix="admin.list_audit_events"))[-1]
    assert (looked.actor, looked.outcome) == (ACTOR, "ok")


async def test_events_are_found_by_what_they_are(client: Client, operator: Operator) -> None:
    """By tenant, actor, action and time; what begins alike in another way is not the same."""
    async with client.chat() as chat:
        await say(chat, "hi")
        session = chat.session_id
    events = await operator.events(session_id=session)
    middle = events[1].time
    before = await operator.events(session_id=session, end_time=middle)
    after = await operator.events(session_id=session, start_time=middle)
    assert [e.seq for e in (*before, *after)] == [e.seq for e in events]
    assert before
    assert await operator.events(session_id=session, tenant="acme", actor=ACTOR) == events
    for other in ({"tenant": "reader"}, {"actor": "service"}, {"action_prefix": "turn_"}):
        assert not await operator.events(session_id=session, **other)


@pytest.mark.parametrize(
    "request_",
    [
        {"page_size": -1},
        {"page_token": "x"},
        {"page_token": "9" * 20},
        {"order_by": "time"},
        {"filter": pb.AuditFilter(session_id="nothing")},
        {"filter": pb.AuditFilter(actor="a\nb")},
        {"filter": pb.AuditFilter(action_prefix="x" * 200)},
        {"filter": pb.AuditFilter(start_time=Timestamp(seconds=-1))},
    ],
)
async def test_a_bad_request_is_told_which_field(
    operator: Operator, request_: dict[str, Any]
) -> None:
    """INVALID_ARGUMENT, as everywhere."""
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await operator.page(**request_)
    assert refused.value.code() is grpc.StatusCode.INVALID_ARGUMENT


async def test_the_log_is_for_operators(operator: Operator) -> None:
    """Who has not the scope sees nothing of it, and is seen trying."""
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await operator.page(READER)
    assert refused.value.code() is grpc.StatusCode.PERMISSION_DENIED
    assert not await operator.events(action_prefix="admin.", tenant="reader")
    tried = await operator.events(action_prefix="policy.refused", tenant="reader")
    tried = [event for event in tried if "ListAuditEvents" in str(event.detail)]
    assert [event.outcome for event in tried] == ["POLICY_DENIED"]


async def test_no_secret_is_in_the_log(client: Client, operator: Operator) -> None:
    """Of a message, a header, an MCP server's header, a tool's input, a caller's change of it."""
    config = _config(
        approvals={"mode": "MODE_STREAM"},
        mcpServers={
            "s": {"http": {"url": "http://127.0.0.1:9", "headers": {"X-Key": f"h{CANARY}"}}}
        },
    )
    command = f"curl -H 'Authorization: Bearer t{CANARY}' https://u:p{CANARY}@example.invalid"
    tool = json.dumps({"command": f"touch a; export TOKEN=e{CANARY}; echo {command!r}"})
    async with client.chat(config=config) as chat:
        await say(chat, f"::say message m{CANARY}")
        changed = {"command": f"true --password c{CANARY}"}
        await _answered(
            await chat.send(f"::tool Bash {tool}\n::say done"), chat, updated_input=changed
        )
        await _answered(await chat.send(f"::tool Bash {tool}\n::say done"), chat, deny=f"n{CANARY}")
        session = chat.session_id
    events = await operator.events()
    about = [event for event in events if event.session_id == session]
    assert [e.action for e in about if e.action.startswith("tool.")] == [
        "tool.allowed",
        "tool.denied",
    ]
    assert "[redacted]" in str(about)
    assert CANARY not in str(events)


async def test_the_log_of_the_service_verifies(thread: ServiceThread, operator: Operator) -> None:
    """After all of the above, read from its beginning by way of the API alone."""
    events = await operator.events()
    assert [event.seq for event in events] == list(range(1, len(events) + 1))
    assert [e.prev_hash for e in events[1:]] == [e.hash for e in events[:-1]]
    assert events[0].action == "service.started"
    assert msgspec.json.decode(json.dumps(_detail(events[0])))["node"]
