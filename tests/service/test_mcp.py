"""MCP servers of callers: real ones, brokered by the service, with the real CLI."""

import asyncio
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from conversing import Model
from google.protobuf.json_format import ParseDict
from kept import contents
from mcp_servers import REACHABLE, TOKEN, Running, mcp_server
from parking import say, start_of
from running import TOOLS, data_directory, running_client, service_in
from warmline.v1 import events_pb2 as pb
from warmline.v1 import session_config_pb2 as config_pb
from warmline_client import Client, WarmlineError, connect

pytestmark = pytest.mark.real_cli

STATUS = pb.McpServerStatus
NO_SPARES = {"min_spares": 0, "max_spares": 0}
COMMANDS = {"limits": {"caller_commands": True}, "sandbox": {"readable": TOOLS}}
ADD = '::tool mcp__sums__add {"a": 1, "b": 2}\n::say done'


@pytest.fixture
def model(monkeypatch: pytest.MonkeyPatch) -> Model:
    """The model of the test's service."""
    made = Model()
    monkeypatch.setattr("warmline_service.server.make_provider", lambda *_: made.provider)
    return made


@pytest.fixture
async def sums() -> AsyncIterator[Running]:
    """A server that adds."""
    async with mcp_server() as running:
        yield running


@pytest.fixture
async def client(model: Model) -> AsyncIterator[Client]:
    """A service of the test's own that may reach this machine."""
    async with running_client(pool=NO_SPARES, mcp=REACHABLE) as client:
        yield client


def remote(running: Running, token: str = TOKEN, **more: Any) -> dict[str, Any]:
    """A server with its token, as a caller names it."""
    address = {"url": running.url, "headers": {"Authorization": f"Bearer {token}"}}
    return {running.kind: address} | more


def config(servers: dict[str, Any], **more: Any) -> config_pb.SessionConfig:
    """A session with these servers, whose tools need no approval."""
    allowed = {"allowed": [f"mcp__{name}" for name in servers]}
    return ParseDict({"mcpServers": servers, "tools": allowed} | more, config_pb.SessionConfig())


def statuses(events: list[pb.Event]) -> list[tuple[str, int]]:
    """What was told of servers."""
    found = [e.mcp_server_status for e in events if e.HasField("mcp_server_status")]
    return [(each.name, each.state) for each in found]


def results(events: list[pb.Event]) -> list[tuple[str, bool]]:
    """What tools gave."""
    return [
        (e.tool_result.text, e.tool_result.is_error) for e in events if e.HasField("tool_result")
    ]


@pytest.mark.parametrize("kind", ["http", "sse"])
async def test_the_model_calls_a_tool_of_a_server(client: Client, model: Model, kind: Any) -> None:
    """Whose bearer token was checked by the server, and is seen by no process."""
    async with mcp_server(kind) as server:
        async with client.chat(config=config({"sums": remote(server)})) as chat:
            events = await say(chat, ADD)
        assert server.calls == ["add"]
    assert (STATUS.STATE_CONNECTED) in [state for _, state in statuses(events)]
    ((text, failed),) = results(events)
    assert ("3" in text, failed) == (True, False)
    assert "mcp__sums__add" in {tool["name"] for tool in model.asked[-1]["tools"]}
    assert "Add with this." in str(model.asked[-1])
    assert TOKEN not in str(model.asked)


async def test_without_a_rule_its_tools_need_an_approval(client: Client, sums: Running) -> None:
    """They are somebody else's, unlike the caller's own."""
    asked = config({"sums": remote(sums)})
    asked.tools.Clear()
    async with client.chat(config=asked) as chat:
        events = await say(chat, ADD)
    assert sums.calls == []
    assert [failed for _, failed in results(events)] == [True]
    denied = events[-1].turn_completed.permission_denials
    assert [each.tool_name for each in denied] == ["mcp__sums__add"]


async def test_a_server_that_is_lost_is_told_and_comes_back(client: Client, sums: Running) -> None:
    """A call of it fails towards the model; the next turn begins when it is there again."""
    async with client.chat(config=config({"sums": remote(sums)})) as chat:
        await say(chat, "hi")
        await sums.stop()
        events = await say(chat, ADD)
        ((text, failed),) = results(events)
        assert failed
        assert "sums" in text
        events = await say(chat, "still there?")
        assert ("sums", STATUS.STATE_FAILED) in statuses(events)
        await sums.start()
        events = await say(chat, ADD)
    assert [failed for _, failed in results(events)] == [False], results(events)
    assert sums.calls == ["add"]


async def test_a_turn_without_a_server_says_so_each_time(client: Client, sums: Running) -> None:
    """And why; an Ask, which hears of its own turn alone, too."""
    asked = config({"sums": remote(sums, "wrong")})
    async with client.chat(config=asked) as chat:
        for _ in range(2):
            events = await say(chat, "hi")
            (status,) = [e.mcp_server_status for e in events if e.HasField("mcp_server_status")]
            assert (status.name, status.state) == ("sums", STATUS.STATE_FAILED)
            assert status.error == "it does not accept the headers (HTTP 401)"
    events = [event async for event in client.ask("hi", config=asked)]
    assert statuses(events) == [("sums", STATUS.STATE_FAILED)]


async def test_a_required_server_has_to_be_there(client: Client, sums: Running) -> None:
    """Otherwise the turn fails before anything is started, by the server's name."""
    await sums.stop()
    async with client.chat(config=config({"sums": remote(sums, required=True)})) as chat:
        events = await say(chat, "hi")
        error = WarmlineError(events[-1].turn_failed.status)
        assert (error.reason, error.metadata["server"]) == ("MCP_UNAVAILABLE", "sums")
        assert "cannot be reached" in error.message
        await sums.start()
        events = await say(chat, ADD)
    assert events[-1].turn_completed.result == "done"


async def test_a_turn_that_waits_for_none_begins_at_once(client: Client) -> None:
    """A server that does not answer costs it nothing, and is told to be on its way."""
    writers: list[asyncio.StreamWriter] = []
    silent = await asyncio.start_server(lambda _, writer: writers.append(writer), "127.0.0.1", 0)
    url = f"http://127.0.0.1:{silent.sockets[0].getsockname()[1]}/mcp"
    servers = {"silent": {"http": {"url": url}}}
    try:
        for wait, least in ({"mode": "MODE_NONE"}, 0.0), ({"timeout": "0.5s"}, 0.5):
            async with client.chat(config=config(servers, mcpWait=wait)) as chat:
                events = await say(chat, "hi")
            assert statuses(events) == [("silent", STATUS.STATE_CONNECTING)]
            waited = start_of(events).mcp.ToTimedelta().total_seconds()
            assert least <= waited < least + 2.0
    finally:
        for writer in writers:
            writer.close()
        silent.close()


async def test_new_tools_of_a_server_are_there_in_the_next_turn(
    client: Client, model: Model, sums: Running
) -> None:
    """It says itself that it has more."""
    async with client.chat(config=config({"sums": remote(sums)})) as chat:
        # The service looks at it, and tells the CLI, while the model goes on.
        events = await say(chat, "::tool mcp__sums__grow {}\n::delay 2s\n::say done")
        told = [e.mcp_server_status for e in events if e.HasField("mcp_server_status")]
        assert "grown" in told[-1].tools
        events = await say(chat, "::tool mcp__sums__grown {}\n::say done")
    ((text, failed),) = results(events)
    assert ("new" in text, failed) == (True, False)
    assert "mcp__sums__grown" in {tool["name"] for tool in model.asked[-1]["tools"]}


async def test_an_interrupt_reaches_the_server(client: Client, sums: Running) -> None:
    """The call is taken back there, and the session goes on."""
    async with client.chat(config=config({"sums": remote(sums)})) as chat:
        turn = await chat.send("::tool mcp__sums__hang {}\n::say done")
        await asyncio.wait_for(sums.entered.wait(), 90)
        await chat.interrupt()
        async with asyncio.timeout(90):
            events = [event async for event in turn]
        await asyncio.wait_for(sums.cancelled.wait(), 60)
        assert events[-1].turn_completed.stop_reason == pb.STOP_REASON_INTERRUPTED
        events = await say(chat, ADD)
    assert events[-1].turn_completed.result == "done"


async def test_servers_are_changed_in_mid_session(client: Client, sums: Running) -> None:
    """All of them at once: the next turn has the new ones, and not the old."""
    async with mcp_server("sse") as other:
        asked = config({"old": remote(sums)}, tools={"allowed": ["mcp__old", "mcp__sums"]})
        async with client.chat(config=asked) as chat:
            await say(chat, "hi")
            wanted = {"sums": ParseDict(remote(other), config_pb.McpServer())}
            await chat.update(mcp_servers=wanted)
            events = await say(chat, ADD.replace("sums", "old"))
            # The CLI goes on telling the model of it, and does not call it.
            assert [failed for _, failed in results(events)] == [True]
            await say(chat, ADD)
            assert (sums.calls, other.calls) == ([], ["add"])
            await chat.update(mcp_servers={})
            await say(chat, ADD)
            assert other.calls == ["add"]
            session_id = chat.session_id
        session = await client.session(session_id)
    assert dict(session.config.mcp_servers) == {}


async def test_a_primed_spare_takes_servers(sums: Running) -> None:
    """Nothing has to be said before the first turn, so the start is the best there is."""
    async with running_client(mcp=REACHABLE) as client:
        async with client.chat(config=config({"sums": remote(sums)})) as chat:
            events = await say(chat, ADD)
    receipt = start_of(events)
    assert (receipt.start, list(receipt.misses)) == (pb.START_KIND_WARM, [])
    assert sums.calls == ["add"]


async def test_headers_are_stored_sealed_and_hold_over_a_restart(sums: Running) -> None:
    """Nothing that the service keeps or tells holds the token, and the next service can use it."""
    with data_directory() as data:
        async with _client(data) as client:
            async with client.chat(config=config({"sums": remote(sums)})) as chat:
                await say(chat, ADD)
                session_id = chat.session_id
            told = await client.session(session_id)
            assert dict(told.config.mcp_servers["sums"].http.headers) == {"authorization": ""}
        kept = contents(data)
        assert not any(TOKEN.encode() in each for each in kept)
        async with _client(data) as client:
            async with client.chat(session_id=session_id) as chat:
                events = await say(chat, ADD)
            assert events[-1].turn_completed.result == "done"
        assert sums.calls == ["add", "add"]
        (data / "vault.key").unlink()
        with pytest.raises(ValueError, match="another master key"):
            async with _client(data):
                pass


@asynccontextmanager
async def _client(data: Path) -> AsyncIterator[Client]:
    async with service_in(data, pool=NO_SPARES, mcp=REACHABLE) as service:
        async with connect(f"127.0.0.1:{service.port}") as client:
            yield client


COMMAND = str(Path(__file__).parents[1] / "mcp_command.py")


def _command(**more: Any) -> dict[str, Any]:
    return {"stdio": {"command": sys.executable, "arguments": [COMMAND]} | more}


async def test_a_command_needs_the_operators_leave(client: Client) -> None:
    """It runs on the service's machine, if in a sandbox."""
    with pytest.raises(WarmlineError) as refused:
        async with client.chat(config=config({"cmd": _command()})) as chat:
            await say(chat, "hi")
    assert refused.value.reason == "POLICY_DENIED"
    assert refused.value.metadata["field"] == "config.mcp_servers[cmd]"


async def test_plain_http_needs_the_operators_leave() -> None:
    """A token would travel in the clear."""
    servers = {"far": {"http": {"url": "http://mcp.example/"}}}
    async with running_client(pool=NO_SPARES) as client:
        with pytest.raises(WarmlineError) as refused:
            async with client.chat(config=config(servers)) as chat:
                await say(chat, "hi")
    assert refused.value.reason == "POLICY_DENIED"


async def test_a_command_runs_beside_the_cli(model: Model) -> None:
    """With what is given to its environment; one that cannot be run is told, and the turn goes on."""
    servers = {
        "cmd": _command(environment={"WORD": "heard"}),
        "none": {"stdio": {"command": "/no/such/program"}},
    }
    async with running_client(pool=NO_SPARES, **COMMANDS) as client:
        async with client.chat(config=config(servers)) as chat:
            events = await say(chat, "::tool mcp__cmd__word {}\n::say done")
            ((text, failed),) = results(events)
            assert ("heard" in text, failed) == (True, False)
            assert set(statuses(events)) == {
                ("cmd", STATUS.STATE_CONNECTED),
                ("none", STATUS.STATE_FAILED),
            }
            told = {tool["name"] for tool in model.asked[-1]["tools"]}
            assert "mcp__cmd__word" in told
        required = {"none": servers["none"] | {"required": True}}
        async with client.chat(config=config(required)) as chat:
            events = await say(chat, "hi")
    assert WarmlineError(events[-1].turn_failed.status).reason == "MCP_UNAVAILABLE"


async def test_another_server_of_the_same_name_has_its_own_tools(
    client: Client, model: Model
) -> None:
    """Also where it is connected already: the next turn is the first that has them."""
    async with mcp_server() as first, mcp_server() as second:

        @second.app.tool()
        def other() -> str:
            """Say who it is."""
            return "the other one"

        async with (
            client.chat(config=config({"sums": remote(second)})) as warm,
            client.chat(config=config({"sums": remote(first)})) as chat,
        ):
            await say(warm, "hi")
            await say(chat, "hi")
            await chat.update(mcp_servers={"sums": _server(second)})
            events = await say(chat, "::tool mcp__sums__other {}\n::say done")
            assert "the other one" in results(events)[0][0]
            await chat.update(mcp_servers={"sums": _server(first)})
            events = await say(chat, ADD)
    assert first.calls == ["add"]
    assert events[-1].turn_completed.result == "done"


def _server(running: Running) -> config_pb.McpServer:
    return ParseDict(remote(running), config_pb.McpServer())


async def test_a_running_turn_keeps_its_servers(client: Client, sums: Running) -> None:
    """Whatever is changed meanwhile, and whoever tries to come in."""
    async with client.chat(config=config({"sums": remote(sums)})) as chat:
        turn = await chat.send("::delay 1s\n" + ADD)
        await chat.update(mcp_servers={})
        with pytest.raises(WarmlineError) as refused:
            async with client.chat(session_id=chat.session_id):
                pass
        assert refused.value.reason == "SESSION_BUSY"
        async with asyncio.timeout(90):
            events = [event async for event in turn]
        assert [failed for _, failed in results(events)] == [False]
        await say(chat, ADD)
    assert sums.calls == ["add"]


async def test_a_slow_command_is_given_up(model: Model) -> None:
    """The turn begins without it, when it was waited for as long as the session says."""
    servers = {
        "quick": _command(environment={"WORD": "w"}) | {"required": True},
        "slow": _slow(60),
    }
    # The quick one has to come up in it, on a machine that is slow itself.
    wait = {"timeout": "15s"}
    async with running_client(pool=NO_SPARES, **COMMANDS) as client:
        async with client.chat(config=config(servers, mcpWait=wait)) as chat:
            events = await say(chat, "hi")
    assert dict(statuses(events)) == {
        "quick": STATUS.STATE_CONNECTED,
        "slow": STATUS.STATE_FAILED,
    }
    assert events[-1].HasField("turn_completed")


async def test_a_required_command_is_tried_again(model: Model, tmp_path: Path) -> None:
    """On the same process, with each turn."""
    command = f"test -e {tmp_path}/there || sleep 30; exec {_RUN}"
    servers = {"late": _slow(0, command) | {"required": True}}
    wait = {"timeout": "5s"}
    tmp_path.chmod(0o755)
    readable = COMMANDS | {"sandbox": {"readable": (*TOOLS, tmp_path)}}
    async with running_client(pool=NO_SPARES, **readable) as client:
        async with client.chat(config=config(servers, mcpWait=wait)) as chat:
            events = await say(chat, "hi")
            error = WarmlineError(events[-1].turn_failed.status)
            assert (error.reason, error.metadata["server"]) == ("MCP_UNAVAILABLE", "late")
            assert "timed out" in error.message
            (tmp_path / "there").touch()
            # A slow machine may need more than one turn for it.
            for _ in range(8):
                events = await say(chat, "::tool mcp__late__word {}\n::say done")
                if not events[-1].HasField("turn_failed"):
                    break
            assert [failed for _, failed in results(events)] == [False]
    assert start_of(events).start == pb.START_KIND_HOT


_RUN = f"{sys.executable} {COMMAND}"


def _slow(seconds: int, command: str = "") -> dict[str, Any]:
    command = command or f"sleep {seconds}; exec {_RUN}"
    word = {"WORD": "at last"}
    return {"stdio": {"command": "/bin/sh", "arguments": ["-c", command], "environment": word}}


async def test_a_command_that_is_given_again_is_the_same(model: Model) -> None:
    """An update names all servers, those that stay as well."""
    servers = {"cmd": _command(environment={"WORD": "heard"})}
    async with running_client(pool=NO_SPARES, **COMMANDS) as client:
        async with client.chat(config=config(servers)) as chat:
            await say(chat, "hi")
            again = {"cmd": ParseDict(servers["cmd"], config_pb.McpServer())}
            await chat.update(mcp_servers=again)
            events = await say(chat, "::tool mcp__cmd__word {}\n::say done")
            assert [failed for _, failed in results(events)] == [False]
            assert STATUS.STATE_CONNECTING not in dict(statuses(events)).values()
        async with client.chat(session_id=chat.session_id) as chat:
            events = await say(chat, "hi")
            assert events[0].HasField("turn_queued")


async def test_a_connection_that_was_one_too_many_is_made_later(
    model: Model, sums: Running
) -> None:
    """When another session has given its own back."""
    mcp = REACHABLE | {"connections_per_tenant": 1}
    async with mcp_server() as other, running_client(pool=NO_SPARES, mcp=mcp) as client:
        async with client.chat(config=config({"sums": remote(sums)})) as first:
            await say(first, "hi")
            async with client.chat(config=config({"other": remote(other)})) as second:
                events = await say(second, "hi")
                assert statuses(events) == [("other", STATUS.STATE_FAILED)]
                await first.update(mcp_servers={})
                await say(first, "hi")
                events = await say(second, ADD.replace("sums", "other"))
    assert [failed for _, failed in results(events)] == [False]
