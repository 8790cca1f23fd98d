"""docs/features.md is true: each of its examples runs, and its table is what the service decides."""

from __future__ import annotations

import ast
import asyncio
import json
import re
import sys
from collections import deque
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import grpc
import pytest
from conversing import Model
from feature_page import PAGE, Example, sections, table
from google.protobuf.json_format import MessageToDict, ParseDict
from mcp_servers import REACHABLE, mcp_server
from running import TOOLS, running_service
from warmline.v1 import chat_service_pb2 as chat_pb
from warmline.v1 import chat_service_pb2_grpc as chat_grpc
from warmline.v1 import events_pb2 as pb
from warmline.v1 import session_config_pb2 as config_pb
from warmline.v1 import session_service_pb2 as session_pb
from warmline.v1 import session_service_pb2_grpc as session_grpc
from warmline_client import connect
from warmline_client._errors import from_rpc_error
from warmline_service.chat._keys import acceptable_keys, spare_keys
from warmline_service.rpc._parse_config import config_of
from warmline_service.worker import Capabilities

_TIMEOUT = 60.0
_ENDS = ("turn_completed", "turn_failed")
_ABLE = Capabilities(
    "2.1.329",
    late_model=True,
    late_system_prompt=True,
    warming=True,
    priming=True,
    late_workspace=True,
    mirror=True,
    injection=True,
)
# A value for each field of the page's table.
_AGENTS = {"a": {"description": "d", "prompt": "p"}}
_VALUES: dict[str, dict[str, Any]] = {
    "model": {"model": "haiku"},
    "permission_mode": {"permission_mode": "PERMISSION_MODE_PLAN"},
    "tools.allowed": {"tools": {"allowed": ["Read"]}},
    "tools.disallowed": {"tools": {"disallowed": ["Read"]}},
    "approvals": {"approvals": {"mode": "MODE_STREAM", "timeout": "9s"}},
    "client_tools": {"client_tools": [{"name": "n", "description": "d"}]},
    "mcp_servers": {"mcp_servers": {"n": {"http": {"url": "https://mcp.example/"}}}},
    "credential": {"credential": {"api_key": "k"}},
    "mcp_wait": {"mcp_wait": {"mode": "MODE_NONE"}},
    "reasoning.effort": {"reasoning": {"effort": "EFFORT_HIGH"}},
    "reasoning.budget_tokens": {"reasoning": {"budget_tokens": 2000}},
    "limits.turn_timeout": {"limits": {"turn_timeout": "9s"}},
    "limits.stall_timeout": {"limits": {"stall_timeout": "9s"}},
    "system_prompt": {"system_prompt": {"append": "p"}},
    "agents": {"agents": _AGENTS},
    "output_schema": {"output_schema": {"type": "object"}},
    "workspace": {"workspace": {"name": "w"}},
    "settings": {"settings": {"language": "french"}},
    "plugins": {"plugins": [{"name": "p"}]},
    "setting_sources": {"setting_sources": ["SETTING_SOURCE_PROJECT"]},
    "debug": {"debug": {}},
    "add_directories": {"add_directories": ["w"]},
    "agent": {"agents": _AGENTS, "agent": "a"},
    "tools.available": {"tools": {"available": {"names": ["Read"]}}},
    "fallback_models": {"fallback_models": ["haiku"]},
    "betas": {"betas": ["b"]},
    "limits.max_turns": {"limits": {"max_turns": 1}},
    "limits.max_budget_usd": {"limits": {"max_budget_usd": 1}},
    "profile": {"profile": "PROFILE_BARE"},
}


class Caller:
    """Runs the examples of a section, one after another, as a caller with bare stubs does."""

    def __init__(self, channel: grpc.aio.Channel, here: Mapping[str, str]) -> None:
        self._here = here
        self._chat = chat_grpc.ChatServiceStub(channel)
        self._sessions = session_grpc.SessionServiceStub(channel)
        self._session_id = ""
        # What waits for an answer.
        self._asked: dict[str, deque[str]] = {"APPROVAL_ID": deque(), "CALL_ID": deque()}

    async def run(self, example: Example) -> list[pb.Event]:
        """What an example is told; raises AioRpcError where it is refused."""
        last = example.told[-1][0] if example.breaks else ""
        async with asyncio.timeout(_TIMEOUT):
            body = json.loads(example.code)
            if isinstance(body, list):
                return await self._converse(body, last)
            if "decision" in body:
                request = session_pb.AnswerApprovalRequest()
                await self._sessions.AnswerApproval(self._filled(body, request))
                watched = self._chat.Watch(chat_pb.WatchRequest(session_id=self._session_id))
                return await self._read(watched, until=_ENDS)
            asked = self._chat.Ask(self._filled(body, chat_pb.AskRequest()))
            return await self._read(asked, until=(last,) if last else _ENDS)

    async def _converse(self, frames: Sequence[Any], last: str) -> list[pb.Event]:
        call = self._chat.Chat()
        told = self._events(call)
        events = []
        for frame in frames:
            for name in [each for each in self._asked if each in json.dumps(frame)]:
                while not self._asked[name]:
                    events.append(await anext(told))
            await call.write(self._filled(frame, chat_pb.ChatRequest()))
            if "open" in frame:
                events.append(await anext(told))
        ends = (last,) if last else _ENDS
        left = 1 if last else max(1, sum("message" in frame for frame in frames))
        left -= sum(event.WhichOneof("kind") in ends for event in events)
        while left > 0:
            events.append(await anext(told))
            left -= events[-1].WhichOneof("kind") in ends
        if last:
            call.cancel()
        else:
            await call.done_writing()
            assert await call.code() is grpc.StatusCode.OK
        return events

    async def _read(self, call: Any, *, until: Sequence[str]) -> list[pb.Event]:
        """A stream's events up to one of a kind; then the caller goes away."""
        events = []
        async for event in self._events(call):
            events.append(event)
            if event.WhichOneof("kind") in until:
                break
        call.cancel()
        return events

    async def _events(self, call: Any) -> AsyncIterator[pb.Event]:
        while (response := await call.read()) is not grpc.aio.EOF:
            for event in response.events:
                self._notice(event)
                yield event
        raise AssertionError(f"the stream ended with {await call.code()}")

    def _notice(self, event: pb.Event) -> None:
        self._session_id = event.session_id or self._session_id
        approvals, calls = self._asked["APPROVAL_ID"], self._asked["CALL_ID"]
        if event.HasField("session_opened"):
            approvals.clear()
            approvals.extend(each.approval_id for each in event.session_opened.open_approvals)
            calls.clear()
            calls.extend(each.call_id for each in event.session_opened.open_client_calls)
        elif event.HasField("approval_requested"):
            approvals.append(event.approval_requested.approval_id)
        elif event.HasField("client_tool_called"):
            calls.append(event.client_tool_called.call_id)

    def _filled(self, body: Any, into: Any) -> Any:
        """A request with its placeholders filled."""
        text = json.dumps(body).replace("SESSION_ID", self._session_id)
        for there, here in self._here.items():
            text = text.replace(there, here)
        for name, ids in self._asked.items():
            if name in text:
                text = text.replace(name, ids.popleft())
        return ParseDict(json.loads(text), into)


async def _answer(caller: Caller, model: Model, example: Example) -> None:
    """Run an example and assert that the page says what comes of it."""
    before = len(model.provider.requests)
    if example.answer == "Refused":
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await caller.run(example)
        assert (from_rpc_error(caught.value).reason,) == example.words
        return
    events = await caller.run(example)
    told = [
        (str(e.WhichOneof("kind")), json.dumps(MessageToDict(e, preserving_proto_field_name=True)))
        for e in events
    ]
    rest = iter(told)
    for kind, words in example.told:
        found = any(k == kind and all(word in text for word in words) for k, text in rest)
        assert found, (kind, words, [(k, text[:400]) for k, text in told])
    if example.sent:
        asked = json.dumps(model.asked[before:])
        assert [word for word in example.sent if word not in asked] == []


async def _prints(port: int, example: Example) -> None:
    """Run Python as it stands, and assert that it prints what the page says."""
    printed: list[str] = []
    code = compile(example.code, "features.md", "exec", ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
    async with connect(f"127.0.0.1:{port}") as client, asyncio.timeout(_TIMEOUT):
        names = {name: getattr(config_pb, name) for name in dir(config_pb)}
        await eval(code, names | {"client": client, "print": printed.append})  # noqa: S307  # our own
    assert tuple(printed) == example.words


def _greeter(folder: Path) -> Path:
    """The plugin that the page's operator has installed."""
    files = {
        ".claude-plugin/plugin.json": '{"name": "greeter"}',
        "commands/hello.md": "::say hello from greeter\n",
        "agents/looker.md": "---\nname: looker\ndescription: Looks\n---\nYou look around.\n",
    }
    for path, text in files.items():
        (folder / path).parent.mkdir()
        (folder / path).write_text(text)
    folder.chmod(0o755)
    return folder


@pytest.mark.real_cli
@pytest.mark.timeout(600)  # half a hundred processes, one after another
async def test_each_example_is_answered_as_the_page_says(
    subtests: pytest.Subtests, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """One service takes them all; each section is a caller of its own."""
    model = Model()
    monkeypatch.setattr("warmline_service.server.make_provider", lambda *_: model.provider)
    async with (
        running_service(
            cli={"max_retries": 4, "plugins": {"greeter": _greeter(tmp_path)}},
            sandbox={"readable": TOOLS},
            pool={"min_spares": 0, "max_spares": 0},
            limits={
                "forbidden_permission_modes": ["auto"],
                "approval_park": 1,
                "caller_commands": True,
            },
            mcp=REACHABLE,
            provider={"caller_credentials": True},
            models={"extra": ["claude-haiku-4-5-20251001"]},
        ) as service,
        mcp_server() as server,
    ):
        # Where what the page names is on this machine.
        here = {
            "http://127.0.0.1:8000/mcp": server.url,
            "PYTHON": sys.executable,
            "tests/mcp_command.py": str(Path(__file__).resolve().parents[1] / "mcp_command.py"),
        }
        async with grpc.aio.insecure_channel(f"127.0.0.1:{service.port}") as channel:
            for title, examples in sections().items():
                caller = Caller(channel, here)
                for number, example in enumerate(examples, 1):
                    with subtests.test(f"{title}, {number}"):
                        if example.answer == "Prints":
                            await _prints(service.port, example)
                        else:
                            await _answer(caller, model, example)


def _config_fields() -> set[str]:
    """Every field of a configuration, those of some messages one by one."""
    config = config_pb.SessionConfig()
    apart = {"tools": config.tools, "reasoning": config.reasoning, "limits": config.limits}
    whole = {field.name for field in config_pb.SessionConfig.DESCRIPTOR.fields} - set(apart)
    parts = {f"{name}.{field.name}" for name in apart for field in apart[name].DESCRIPTOR.fields}
    return whole | parts


def test_the_table_has_every_field() -> None:
    """A field that is added has to say what it starts on."""
    assert set(table()) == _config_fields() == set(_VALUES)


@pytest.mark.parametrize("field", list(_VALUES))
def test_the_table_is_what_the_service_decides(field: str) -> None:
    """Which spares take a session with this field alone, and what the receipt of a cold start names."""
    config = config_of(ParseDict(_VALUES[field], config_pb.SessionConfig()), "c", existing=False)
    workspace = Path("/w") if config.workspace else None
    keys = acceptable_keys(_ABLE, config, config.model, workspace)
    spares = spare_keys(_ABLE, bare=False)
    best = next((key for key in keys if key in spares), keys[-1])
    start = "cold" if best not in spares else "primed" if best.primed else "warmed"
    misses = min((best.misses(spare) for spare in spares), key=len)
    assert (start, set(misses)) == table()[field]


@pytest.mark.parametrize(
    ("field", "able"),
    [
        ("model", "late_model"),
        ("system_prompt", "late_system_prompt"),
        ("workspace", "late_workspace"),
    ],
)
def test_what_a_cli_cannot_bind_late_is_cold(field: str, able: str) -> None:
    """As the page says below its table."""
    can = Capabilities(**{**vars(_ABLE), able: False})
    config = config_of(ParseDict(_VALUES[field], config_pb.SessionConfig()), "c", existing=False)
    workspace = Path("/w") if config.workspace else None
    (key,) = acceptable_keys(can, config, config.model, workspace)
    assert key.misses(spare_keys(can, bare=False)[-1]) == (field,)


@pytest.mark.parametrize(
    ("field", "misses"), [("workspace", "workspace"), ("add_directories", "directories")]
)
def test_what_cannot_be_shown_late_is_cold(field: str, misses: str) -> None:
    """Where the service has no right to show a running process anything."""
    can = replace(_ABLE, late_directories=False)
    config = config_of(ParseDict(_VALUES[field], config_pb.SessionConfig()), "c", existing=False)
    workspace = Path("/w") if config.workspace else None
    others = tuple(Path("/tenant") / name for name in config.add_directories)
    (key,) = acceptable_keys(can, config, config.model, workspace, others)
    assert key.misses(spare_keys(can, bare=False)[-1]) == (misses,)


def test_what_a_cold_start_costs_is_what_was_measured() -> None:
    """The ratios are the latest ones of docs/benchmarks.md."""
    measured = (Path(__file__).resolve().parents[2] / "docs" / "benchmarks.md").read_text()
    figures = re.search(r"takes (.+?) times a warm one and (.+?) times one on a primed", PAGE)
    assert figures
    warm, primed = figures.groups()
    assert f"| cold / warm: at least 2.5 | {warm} |" in measured
    assert f"| cold / warm primed, with defaults: aim 5 | {primed} |" in measured
