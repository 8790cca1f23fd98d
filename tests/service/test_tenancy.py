"""Each tenant has what its policy says, and no more; with the real CLI."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
import pytest
from conversing import Model
from parking import failure, say, start_of
from running import running_service
from tenancies import tenant
from warmline.v1 import events_pb2 as pb
from warmline.v1 import model_service_pb2 as model_pb
from warmline.v1 import session_config_pb2 as config_pb
from warmline_client import Client, Conversation, WarmlineError, connect
from warmline_service.config import TenantPolicy
from warmline_service.server import Service
from warmline_service.tenants import Administration, stored

pytestmark = pytest.mark.real_cli


@pytest.fixture
def model(monkeypatch: pytest.MonkeyPatch) -> Model:
    """The model of every service of the test."""
    made = Model()
    monkeypatch.setattr("warmline_service.server.make_provider", lambda *_: made.provider)
    return made


@asynccontextmanager
async def clients(*policies: dict[str, Any], **settings: Any) -> AsyncIterator[list[Client]]:
    """A service with a tenant of each policy, and a client of each."""
    tenants = [tenant(f"tenant-{number}") for number in range(len(policies))]
    entries = [each | {"policy": own} for (each, _), own in zip(tenants, policies, strict=True)]
    async with running_service(tenants=entries, **settings) as service, AsyncExitStack() as stack:
        yield [
            await stack.enter_async_context(connect(_address(service), api_key=key))
            for _, key in tenants
        ]


def _address(service: Service) -> str:
    return f"127.0.0.1:{service.port}"


async def refused(client: Client, **config: Any) -> WarmlineError:
    """Why a session cannot be set up so."""
    with pytest.raises(WarmlineError) as caught:
        await client.chat(config=config_pb.SessionConfig(**config)).__aenter__()
    return caught.value


def done(events: list[pb.Event]) -> pb.TurnCompleted:
    """The good end of a turn."""
    assert events[-1].HasField("turn_completed"), events[-1]
    return events[-1].turn_completed


async def test_a_budget_ends_the_turn_that_crosses_it(model: Model) -> None:
    """At the egress, whatever the CLI does; later turns are refused, and cost nothing; others go on."""
    async with clients({"usd_per_day": 0.08}, {}) as (held, free):
        async with held.chat() as chat, free.chat() as other:
            assert done(await say(chat, "a" * 3000)).usage.cost_usd < 0.08
            cut = await say(chat, "::say " + "words " * 300)
            error = failure(cut)
            assert (error.reason, error.metadata["quota"]) == ("BUDGET_EXCEEDED", "usd_per_day")
            asked = len(model.asked)
            error = failure(await say(chat, "hello"))
            assert error.reason == "BUDGET_EXCEEDED"
            assert error.retry_after is not None
            assert len(model.asked) == asked
            done(await say(other, "hello"))


async def test_a_bound_on_tokens_ends_a_turn_in_its_middle(model: Model) -> None:
    """What the tools gave back is too much: the answer to it is cut, and asked for no more."""
    script = "\n".join('::tool Bash {"command": "true"}' for _ in range(40))
    async with clients({"tokens_per_day": 14_000}) as (held,), held.chat() as chat:
        events = await say(chat, script)
        error = failure(events)
        assert (error.reason, error.metadata["quota"]) == ("BUDGET_EXCEEDED", "tokens_per_day")
        assert any(event.HasField("tool_result") for event in events)
        assert len(model.asked) == 2
        assert failure(await say(chat, "more")).reason == "BUDGET_EXCEEDED"
        assert len(model.asked) == 2


async def test_turns_side_by_side(model: Model) -> None:
    """Of many sessions' messages at once so many are taken; what is refused is told by name."""
    async with clients({"concurrent_turns": 3}, pool={"max_processes": 4}) as (client,):
        async with AsyncExitStack() as stack:
            chats = [await stack.enter_async_context(client.chat()) for _ in range(8)]
            ends = await asyncio.gather(*(say(chat, "::delay 1s\n::say x") for chat in chats))
            good = [events for events in ends if events[-1].HasField("turn_completed")]
            assert len(good) == 3
            errors = [failure(events) for events in ends if events not in good]
            assert {(each.reason, each.metadata["quota"]) for each in errors} == {
                ("QUOTA_EXCEEDED", "concurrent_turns")
            }
            done(await say(chats[0], "again"))


async def opens(client: Client, count: int) -> list[Conversation | BaseException]:
    """So many streams at once."""
    return await asyncio.gather(
        *(client.chat().__aenter__() for _ in range(count)), return_exceptions=True
    )


async def test_caps_hold_when_two_hundred_open_at_once() -> None:
    """Streams, sessions and requests of a minute: as many as may be, the rest by name with a time to wait."""
    caps = [{"open_streams": 5}, {"sessions": 7}, {"requests_per_minute": 9}]
    reasons = ["streams_per_tenant", "sessions_per_tenant", "requests_per_minute"]
    async with clients(*caps, {}) as (*held, free):
        for client, reason, most in zip(held, reasons, (5, 7, 9), strict=True):
            results = await opens(client, 200)
            opened = [each for each in results if isinstance(each, Conversation)]
            errors = [each for each in results if isinstance(each, WarmlineError)]
            assert (len(opened), len(errors)) == (most, 200 - most)
            assert {each.metadata["quota"] for each in errors} == {reason}
            async with free.chat() as chat:
                done(await say(chat, "hello"))
            for each in opened:
                await each.__aexit__(None, None, None)


async def test_a_message_is_a_request_of_its_own() -> None:
    """The stream goes on; what is one too many fails with the time to wait."""
    async with clients({"requests_per_minute": 3}) as (client,), client.chat() as chat:
        for _ in range(2):
            done(await say(chat, "hello"))
        error = failure(await say(chat, "hello"))
        assert (error.reason, error.metadata["quota"]) == ("RATE_LIMITED", "requests_per_minute")
        assert error.retry_after is not None
        assert error.retry_after <= 60


async def test_a_tenant_sees_and_names_its_own_models() -> None:
    """By id or alias; whatever names another, as fallback or of an agent, is refused."""
    async with clients({"models": ["haiku", "opus"]}, {}) as (held, free):
        allowed = [each.id for each in await held.models()]
        assert {"claude-haiku-5-5", "claude-opus-5-5"} == set(allowed)
        assert len(await free.models()) > len(allowed)
        agent = config_pb.Agent(description="d", prompt="p", model="sonnet")
        for config in (
            {"model": "sonnet"},
            {"model": "claude-sonnet-5-5"},
            {"fallback_models": ["sonnet"]},
            {"agents": {"a": agent}},
        ):
            error = await refused(held, **config)
            assert error.reason == "MODEL_NOT_ALLOWED"
            assert error.metadata["model"] == "claude-sonnet-5-5"
        async with held.chat(model="haiku") as chat:
            done(await say(chat, "hello"))


async def test_a_tenant_of_other_providers_has_nothing_here(model: Model) -> None:
    """No model and no session, told by name, and nothing is started for it; others go on."""
    async with clients(
        {"providers": ["anthropic"]}, {"providers": ["anthropic", "loopback"]}, {"providers": []}
    ) as (held, free, nobody):
        for client in (held, nobody):
            assert await client.models() == []
            error = await refused(client)
            assert (error.reason, error.metadata["provider"]) == ("POLICY_DENIED", "loopback")
            with pytest.raises(grpc.aio.AioRpcError, match="may not use the provider loopback"):
                await client._models.GetModel(
                    model_pb.GetModelRequest(name="haiku"), metadata=client._metadata
                )
        assert await free.models()
        async with free.chat() as chat:
            done(await say(chat, "hello"))
        assert len(model.asked) == 1


async def test_a_provider_that_is_taken_away_has_no_further_turn(model: Model) -> None:
    """Nor in a session whose process is hot; given back, the session goes on in it."""
    async with running_service(tenants=[tenant("admin")[0]]) as service:
        assert service._callers is not None
        admin = service._callers.administration
        await admin.create_tenant("acme", "", (), TenantPolicy(), disabled=False)
        _, key = await admin.create_key("acme", (), "", None)
        async with connect(_address(service), api_key=key) as client, client.chat() as chat:
            done(await say(chat, "hello"))
            await _give(admin, TenantPolicy(providers=frozenset({"anthropic"})))
            error = failure(await say(chat, "hello"))
            assert (error.reason, error.metadata["provider"]) == ("POLICY_DENIED", "loopback")
            assert len(model.asked) == 1
            await _give(admin, TenantPolicy())
            events = await say(chat, "hello")
            assert start_of(events).start == pb.START_KIND_HOT
            done(events)


async def _give(admin: Administration, policy: TenantPolicy) -> None:
    await admin.update_tenant("acme", {"policy": stored(policy)}, None, "admin")


async def test_modes_and_hosts_of_a_tenant() -> None:
    """A mode that is not its own, and a server elsewhere, are refused by name."""
    policy = {"permission_modes": ["default", "plan"], "mcp_hosts": ["*.acme.example"]}
    async with clients(policy) as (client,):
        error = await refused(client, permission_mode=config_pb.PERMISSION_MODE_ACCEPT_EDITS)
        assert (error.reason, error.metadata["permissionMode"]) == ("POLICY_DENIED", "acceptEdits")
        for host, ok in {
            "mcp.acme.example": True,
            "MCP.ACME.EXAMPLE": True,
            "acme.example": False,
            "evil-acme.example": False,
            "acme.example.evil.example": False,
        }.items():
            server = config_pb.McpServer(http=config_pb.McpRemote(url=f"https://{host}/mcp"))
            config = config_pb.SessionConfig(mcp_servers={"s": server})
            if ok:
                async with client.chat(config=config):
                    continue
            error = await refused(client, mcp_servers={"s": server})
            assert (error.reason, error.metadata["field"]) == (
                "POLICY_DENIED",
                "config.mcp_servers[s]",
            )


async def test_a_forbidden_tool_never_runs(tmp_path: Path) -> None:
    """Whatever the session allows; other patterns of the tool run."""
    mark = tmp_path / "mark"
    allowing = config_pb.SessionConfig(tools=config_pb.Tools(allowed=["Bash"]))
    async with clients({"forbidden_tools": ["Bash(touch:*)"]}) as (client,):
        async with client.chat(config=allowing) as chat:
            script = (
                f'::tool Bash {{"command": "touch {mark}"}}\n::tool Bash {{"command": "echo ran"}}'
            )
            events = await say(chat, script)
            results = [each.tool_result for each in events if each.HasField("tool_result")]
            assert [each.is_error for each in results] == [True, False]
            assert not mark.exists()


async def test_what_was_used_is_told_to_its_own_tenant() -> None:
    """By day and model, with what the turns said that it was; and how much of each budget is gone."""
    async with clients({"usd_per_day": 5.0, "tokens_per_day": 10**6}, {}) as (client, other):
        async with client.chat(model="haiku") as chat:
            ends = [done(await say(chat, text)) for text in ("one", "two")]
        while not (used := await client.usage()).days or used.total.turns < 2:
            await asyncio.sleep(0.02)
        (row,) = used.days
        assert (row.model, row.turns, row.model_requests) == ("claude-haiku-5-5", 2, 2)
        assert row.usage == used.total.usage
        for name in ("input_tokens", "output_tokens", "cache_read_input_tokens"):
            assert getattr(row.usage, name) == sum(getattr(end.usage, name) for end in ends)
        said = sum(end.usage.cost_usd for end in ends)
        assert row.usage.cost_usd == pytest.approx(said, abs=2e-6)
        tokens, dollars = used.budgets
        assert (tokens.name, tokens.limit, dollars.name, dollars.limit) == (
            *("tokens_per_day", 1e6),
            *("usd_per_day", 5.0),
        )
        assert dollars.used == pytest.approx(row.usage.cost_usd)
        assert tokens.used > 0
        assert not (await client.usage("2020-01-01", "2020-12-31")).days
        assert not (await other.usage()).days
        with pytest.raises(WarmlineError, match="POLICY_DENIED"):
            await other.usage(tenant_id="tenant-0")
        for first, last in (("2026-13-01", ""), ("yesterday", ""), ("2026-01-02", "2026-01-01")):
            with pytest.raises(WarmlineError, match="FIELD_INVALID"):
                await client.usage(first, last)
