"""Secrets stay where they belong: planted wherever they can enter, looked for wherever something leaves."""

import asyncio
import json
import secrets
from collections.abc import AsyncIterator, Iterable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import psutil
import pytest
from aiohttp import web
from kept import contents, secret_of
from mcp_servers import REACHABLE, TOKEN, mcp_server
from parking import say
from running import data_directory
from serving import Served, served
from tenancies import tenant
from warmline.v1 import events_pb2 as pb
from warmline.v1 import session_config_pb2 as config_pb
from warmline_client import Client, WarmlineError, connect
from warmline_service.config import CliSettings
from warmline_service.egress.loopback import LoopbackModel
from warmline_service.worker import find_cli

pytestmark = pytest.mark.real_cli

# What the CLI can reach of this machine, told by the model's tool: environments, command lines, files.
_LOOK = (
    "env; cat /proc/*/environ /proc/*/cmdline 2>/dev/null | tr '\\\\0' '\\\\n'; "
    'grep -rasE "canary|{token}" "$HOME" "$CLAUDE_CONFIG_DIR" "$TMPDIR" . .. 2>/dev/null | head -c 4000'
)


def canary() -> str:
    """Nothing else has it."""
    return f"canary{secrets.token_hex(12)}"


class Provider:
    """The loopback model as a provider that remembers by which credential it was asked."""

    def __init__(self) -> None:
        self.keys: list[str] = []
        self.url = ""
        self._model = LoopbackModel()

    async def handle(self, request: web.BaseRequest) -> web.StreamResponse:
        """Note the credential, refuse a bad one, and answer."""
        key = request.headers.get("x-api-key", "")
        self.keys.append(key)
        if "bad" in key:
            error = {"type": "authentication_error", "message": f"bad key {key}"}
            return web.json_response({"type": "error", "error": error}, status=401)
        return await self._model.handle(request)

    @asynccontextmanager
    async def serving(self) -> AsyncIterator[None]:
        """At a free port of this machine."""
        runner = web.ServerRunner(web.Server(self.handle, access_log=None), shutdown_timeout=1.0)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        self.url = "http://{}:{}".format(*runner.addresses[0][:2])
        try:
            yield
        finally:
            await runner.cleanup()


def processes(service: Served) -> Iterator[bytes]:
    """What every process of the service shows of itself to others, its own environment too."""
    own = psutil.Process(service.process.pid)
    for each in (own, *own.children(recursive=True)):
        for name in ("cmdline", "environ"):
            path = Path(f"/proc/{each.pid}/{name}")
            # The service's first environment is as it was started with: only the kernel keeps it.
            if path.exists() and not (each == own and name == "environ"):
                yield path.read_bytes()


def found(planted: dict[str, str], texts: Iterable[bytes]) -> set[str]:
    """Whose secret is in one of these."""
    whole = b"\n".join(texts)
    return {name for name, secret in planted.items() if secret.encode() in whole}


async def looked(client: Client, config: config_pb.SessionConfig, token: str) -> list[pb.Event]:
    """A session with these secrets, whose model looks around with a shell and calls its server."""
    # Written so that the command itself does not hold it.
    pattern = f"{token[:-1]}[{token[-1]}]"
    look = json.dumps(
        {"command": _LOOK.replace("{token}", pattern).replace("canary|", "canar[y]|")}
    )
    async with client.chat(config=config) as chat:
        events = await say(chat, f"::tool Bash {look}\n::say looked")
        events += await say(chat, '::tool mcp__sums__add {"a": 2, "b": 3}\n::say added')
        session = await client.session(chat.session_id)
    exported = [str(session).encode()]
    return [*events, pb.Event(raw=pb.Raw(json=exported[0].decode()))]


def sessions(url: str, planted: dict[str, str]) -> list[config_pb.SessionConfig]:
    """One with a server's token, the same that pays by itself, and one with a credential that is refused."""
    token = {"authorization": f"Bearer {planted['server']}"}
    server = config_pb.McpServer(http=config_pb.McpRemote(url=url, headers=token), required=True)
    tools = config_pb.Tools(allowed=["Bash", "mcp__sums__add"])
    allowed = config_pb.SessionConfig(tools=tools, mcp_servers={"sums": server})
    own, bad = config_pb.SessionConfig(), config_pb.SessionConfig()
    own.CopyFrom(allowed)
    own.credential.api_key = planted["session"]
    bad.credential.api_key = planted["refused"]
    return [allowed, own, bad]


async def test_no_secret_leaves(tmp_path: Path) -> None:
    """Operator's, callers', servers' and the service's own: in no event, error, log, file or process."""
    entry, key = tenant("acme", scopes=["chat", "read"])
    planted = {"operator": canary(), "session": canary(), "refused": f"bad-{canary()}"}
    planted |= {"server": TOKEN, "key": secret_of(key)}
    provider, log = Provider(), tmp_path / "log"
    told: list[bytes] = []
    async with provider.serving(), mcp_server() as sums:
        settings = {
            "tenants": json.dumps([entry]),
            "provider__base_url": provider.url,
            "provider__caller_credentials": True,
            "mcp__allow_networks": json.dumps(REACHABLE["allow_networks"]),
            "mcp__allow_http": True,
            "log__level": "debug",
            "sandbox__level": "strict",
        }
        allowed, own, bad = sessions(sums.url, planted)
        environ = {"ANTHROPIC_API_KEY": planted["operator"]}
        with data_directory() as data:
            cli = await asyncio.to_thread(find_cli, CliSettings())
            async with served(
                data, cli, 0, settings, provider="anthropic", environ=environ, log=log
            ) as service:
                planted["vault"] = (data / "vault.key").read_text().strip()
                async with connect(service.address, api_key=key) as client:
                    for config in (allowed, own):
                        events = await looked(client, config, TOKEN)
                        told += [event.SerializeToString() for event in events]
                        results = [e.tool_result for e in events if e.HasField("tool_result")]
                        assert "WARMLINE_SLOT" in results[0].text, results
                        assert results[1].text == '{"result":5}', results
                    async with client.chat(config=bad) as chat:
                        events = await say(chat, "hi")
                        told += [event.SerializeToString() for event in events]
                        assert events[-1].turn_failed.status.message
                    with pytest.raises(WarmlineError) as caught:
                        await client.chat(model=planted["session"]).__aenter__()
                    told.append(str(caught.value).replace(planted["session"], "").encode())
                    assert found(planted, processes(service)) == set()
                async with connect(service.address, api_key=f"{key}x") as stranger:
                    with pytest.raises(WarmlineError) as caught:
                        await stranger.models()
                    told.append(str(caught.value).encode())
                await asyncio.wait_for(service.drained(), 60)
            kept = [text for text in contents(data) if text.strip() != planted["vault"].encode()]
    # They did get to where they belong.
    assert {planted["operator"], planted["session"], planted["refused"]} <= set(provider.keys)
    assert sums.calls == ["add", "add"]
    assert found(planted, told) == set()
    assert found(planted, kept) == set()
    assert found(planted, [log.read_bytes()]) == set()
    assert log.stat().st_size > 0
