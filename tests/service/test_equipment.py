"""Directories, plugins, settings and files that a session brings: with the real CLI, and said why not."""

import base64
import json
from collections.abc import AsyncIterator, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from conversing import Model
from google.protobuf.json_format import ParseDict
from parking import client_of, ended, kill_cli, say, start_of, work_of
from pydantic import ValidationError
from shared import ServiceThread, shared_service
from warmline.v1 import chat_service_pb2 as chat_pb
from warmline.v1 import events_pb2 as pb
from warmline.v1 import session_config_pb2 as config_pb
from warmline_client import Client, Conversation, WarmlineError
from warmline_service.chat import Policy
from warmline_service.config import (
    CliSettings,
    LimitSettings,
    McpSettings,
    ProviderSettings,
    load,
)
from warmline_service.egress._credential import PLACEHOLDER
from warmline_service.errors import Reason
from warmline_service.errors import WarmlineError as ServiceError
from warmline_service.rpc._parse_config import config_of

pytestmark = [pytest.mark.real_cli, pytest.mark.shared_service]
_NO_SPARES = {"min_spares": 0, "max_spares": 0}
_MANIFEST = ".claude-plugin/plugin.json"


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A plugin that the operator has."""
    folder = tmp_path_factory.mktemp("operators")
    for path, text in _plugin("ours").items():
        (folder / path).parent.mkdir(exist_ok=True)
        (folder / path).write_text(text)
    # For the users of the processes, too.
    folder.chmod(0o755)
    return folder


@pytest.fixture(scope="module")
def model() -> Model:
    """The model of the module's service."""
    return Model()


@pytest.fixture(scope="module")
def thread(model: Model, installed: Path) -> Iterator[ServiceThread]:
    """One without spares: starting them takes longer than all else here."""
    with shared_service(
        model,
        pool=_NO_SPARES,
        cli={"plugins": {"ours": installed}},
        limits={"caller_commands": True},
    ) as thread:
        yield thread


@pytest.fixture
async def client(thread: ServiceThread, model: Model) -> AsyncIterator[Client]:
    """A client of it; the model has been asked nothing yet."""
    model.provider.requests.clear()
    async with client_of(thread.service) as client:
        yield client


def _plugin(name: str) -> dict[str, str]:
    """Its files: a command and an agent."""
    return {
        _MANIFEST: json.dumps({"name": name, "version": "1.0.0", "description": "d"}),
        "commands/hello.md": f"::say hello from {name}\n",
        "agents/looker.md": f"---\nname: looker\ndescription: looks\n---\nYOU-LOOK-{name}\n",
    }


def _files(files: dict[str, str]) -> list[dict[str, str]]:
    return [
        {"path": path, "data": base64.b64encode(text.encode()).decode()}
        for path, text in files.items()
    ]


def _config(**fields: Any) -> config_pb.SessionConfig:
    return ParseDict(fields, config_pb.SessionConfig())


def _results(events: list[pb.Event]) -> list[tuple[str, bool]]:
    """What the tools gave back, and whether they failed."""
    return [
        (e.tool_result.text, e.tool_result.is_error) for e in events if e.HasField("tool_result")
    ]


def _workspace(thread: ServiceThread, name: str) -> Path:
    """The directory of a named workspace, which is there afterwards."""
    place = thread.service.settings.data_dir / "tenants" / "dev" / "workspaces" / name
    place.mkdir(mode=0o700, parents=True, exist_ok=True)
    return place


async def _turn(client: Client, config: config_pb.SessionConfig, text: str) -> list[pb.Event]:
    async with client.chat(config=config) as chat:
        return await say(chat, text)


async def test_another_workspace_is_open_to_a_session_and_no_more(
    client: Client, thread: ServiceThread
) -> None:
    """A tool reads there without being asked for; not beside it, and not through a link out of it."""
    library, private = _workspace(thread, "library"), _workspace(thread, "private")
    (library / "a").write_text("open")
    (private / "a").write_text("closed")
    (library / "link").symlink_to(private)
    paths = (library / "a", private / "a", library / "link" / "a")
    # One after the other: the results come in the order of the calls then.
    text = "\n::say next\n".join(f'::tool Read {{"file_path":"{path}"}}' for path in paths)
    events = await _turn(client, _config(addDirectories=["library"]), f"{text}\n::say done")
    given = _results(events)
    assert [failed for _, failed in given] == [False, True, True]
    assert "open" in given[0][0]
    assert "closed" not in str(given)
    assert not start_of(events).misses or start_of(events).misses == ["no_spare"]


async def test_files_change_there_where_they_may_in_its_own(
    client: Client, thread: ServiceThread
) -> None:
    """With edits accepted a file is written there, beside it none; rules of the session hold as well."""
    library, private = _workspace(thread, "library"), _workspace(thread, "private")
    text = "\n::say next\n".join(
        f'::tool Write {{"file_path":"{place / "new"}","content":"x"}}'
        for place in (library, private)
    )
    config = _config(
        addDirectories=["library"],
        permissionMode="PERMISSION_MODE_ACCEPT_EDITS",
        tools={"disallowed": ["Bash"]},
    )
    events = await _turn(client, config, f'{text}\n::say next\n::tool Bash {{"command":"ls"}}')
    assert [failed for _, failed in _results(events)] == [False, True, True]
    assert (library / "new").read_text() == "x"
    assert not (private / "new").exists()


async def test_a_link_in_a_workspaces_place_is_refused(
    client: Client, thread: ServiceThread
) -> None:
    """Otherwise one session could lead another out of the tenant's root."""
    place = _workspace(thread, "library").parent / "led-out"
    place.symlink_to("/etc")
    events = await _turn(client, _config(addDirectories=["led-out"]), "hi")
    assert events[-1].HasField("turn_failed")
    assert WarmlineError(events[-1].turn_failed.status).reason == "STORAGE_UNAVAILABLE"


def _under(chat: Conversation, key: str) -> Conversation:
    """The conversation, begun under a key of the test's own."""
    chat._opening.idempotency_key = key
    return chat


async def test_files_are_put_into_a_named_workspace_when_a_session_begins(
    client: Client, thread: ServiceThread
) -> None:
    """In place of what was at their paths; the same session asked for again puts nothing."""
    place = _workspace(thread, "notes")
    (place / "old").write_text("old")
    (place / "kept").write_text("kept")
    workspace = {
        "name": "notes",
        "files": [{"path": "old", "data": "bmV3"}, {"path": "src/a", "data": "bmV3"}],
    }
    config = _config(workspace=workspace)
    async with _under(client.chat(config=config), "notes-1") as chat:
        events = await say(chat, '::tool Bash {"command":"cat old src/a kept"}\n::say done')
        session_id = chat.session_id
    assert _results(events) == [("newnewkept", False)]
    (place / "old").write_text("changed")
    async with _under(client.chat(config=config), "notes-1") as chat:
        assert chat.session_id == session_id
    assert (place / "old").read_text() == "changed"


@pytest.mark.parametrize("kind", ["link", "file", "directory"])
async def test_files_follow_no_link_out_of_a_workspace(
    client: Client, thread: ServiceThread, tmp_path: Path, kind: str
) -> None:
    """What is no directory on the way, or one in the file's place, refuses the session by the field."""
    place = _workspace(thread, f"trap-{kind}")
    if kind == "link":
        (place / "src").symlink_to(tmp_path)
    elif kind == "file":
        (place / "src").write_text("x")
    else:
        (place / "src" / "a").mkdir(parents=True)
    workspace = {"name": f"trap-{kind}", "files": [{"path": "src/a", "data": "bmV3"}]}
    with pytest.raises(WarmlineError) as caught:
        await _turn(client, _config(workspace=workspace), "hi")
    assert caught.value.reason == "FIELD_INVALID"
    assert list(caught.value.fields) == ["config.workspace.files[0].path"]
    assert not list(tmp_path.iterdir())
    assert not list(place.glob(".*"))


async def test_a_link_in_a_files_place_is_replaced(client: Client, thread: ServiceThread) -> None:
    """What it led to is not written to."""
    place = _workspace(thread, "replaced")
    target = place.parent / "target"
    target.write_text("mine")
    (place / "a").symlink_to(target)
    workspace = {"name": "replaced", "files": [{"path": "a", "data": "bmV3"}]}
    async with client.chat(config=_config(workspace=workspace)):
        pass
    assert target.read_text() == "mine"
    assert (place / "a").read_text() == "new"
    assert not (place / "a").is_symlink()


@pytest.mark.parametrize("source", ["files", "name"])
async def test_a_plugin_brings_its_command_and_its_agent(
    client: Client, model: Model, source: str
) -> None:
    """One of the caller's or of the operator's; it is fixed when a process starts."""
    name = "mine" if source == "files" else "ours"
    given = {"files": {"files": _files(_plugin(name))}} if source == "files" else {"name": name}
    call = {"description": "d", "prompt": "::say seen", "subagent_type": f"{name}:looker"}
    async with client.chat(config=_config(plugins=[given])) as chat:
        turn = await chat.send(f"/{name}:hello", interpret=True)
        events = [event async for event in turn]
        assert events[-1].turn_completed.result == f"hello from {name}"
        assert list(start_of(events).misses) == ["plugins"]
        await say(chat, f"::tool Agent {json.dumps(call)}\n::say done")
    assert [f"YOU-LOOK-{name}" in str(each["system"]) for each in model.asked] == [
        False,
        False,
        True,
        False,
    ]


_SETTINGS = {
    "permissions": {"allow": ["Bash(touch:*)"], "defaultMode": "acceptEdits"},
    "outputStyle": "Explanatory",
}
_OWN = {
    "CLAUDE.md": "SHARED-NOTES",
    "CLAUDE.local.md": "LOCAL-NOTES",
    ".claude/settings.json": json.dumps(_SETTINGS),
    ".claude/commands/hey.md": "::say hey there\n",
}
_TRY = '::tool Bash {"command":"touch a"}\n::say next\n::tool Write {"file_path":"b","content":"x"}'


@pytest.mark.parametrize("name", ["", "with-settings"], ids=["own", "named"])
async def test_settings_of_a_workspace_are_honoured_when_asked_for(
    client: Client, model: Model, name: str
) -> None:
    """Its notes, style, rules and commands, but no permission mode; and no settings of one person."""
    workspace = {"name": name, "files": _files(_OWN)}
    config = _config(workspace=workspace, settingSources=["SETTING_SOURCE_PROJECT"])
    async with client.chat(config=config) as chat:
        events = await say(chat, _TRY)
        assert [failed for _, failed in _results(events)] == [False, True]
        assert set(start_of(events).misses) == {"setting_sources"} | (
            {"workspace"} if name else set()
        )
        turn = await chat.send("/hey", interpret=True)
        assert [event async for event in turn][-1].turn_completed.result == "hey there"
    told = json.dumps(model.asked[0])
    assert "SHARED-NOTES" in told
    assert "LOCAL-NOTES" not in told
    assert "Explanatory" in told


async def test_settings_of_a_workspace_mean_nothing_otherwise(client: Client, model: Model) -> None:
    """Whoever can write there says nothing to the CLI."""
    events = await _turn(client, _config(workspace={"files": _files(_OWN)}), _TRY)
    assert [failed for _, failed in _results(events)] == [True, True]
    told = json.dumps(model.asked[0])
    assert "-NOTES" not in told
    assert "Explanatory" not in told


async def test_settings_of_a_workspace_are_honoured_by_the_next_process(
    client: Client, thread: ServiceThread, model: Model
) -> None:
    """Whether it is told the past or resumes it."""
    sources = ["SETTING_SOURCE_PROJECT", "SETTING_SOURCE_LOCAL"]
    config = _config(workspace={"files": _files(_OWN)}, settingSources=sources)
    async with client.chat(config=config) as chat:
        for text in ("hi", '::tool Bash {"command":"touch c"}'):
            await say(chat, text)
            kill_cli(thread.service, chat.session_id)
            await ended(thread.service, chat.session_id)
            events = await say(chat, _TRY)
            assert [failed for _, failed in _results(events)] == [False, True], text
            assert "LOCAL-NOTES" in json.dumps(model.asked[-1])
            turn = await chat.send("/hey", interpret=True)
            assert [event async for event in turn][-1].turn_completed.result == "hey there"


async def test_the_clis_settings_shape_what_the_model_is_told(client: Client, model: Model) -> None:
    """Those that are told late as well as those in permissions; they are kept for what comes next."""
    settings = {
        "language": "french",
        "outputStyle": "Explanatory",
        "includeGitInstructions": False,
        "permissions": {"ask": ["Bash(echo:*)"]},
    }
    plain = await _turn(client, _config(), '::tool Bash {"command":"echo hi"}')
    assert [failed for _, failed in _results(plain)] == [False]
    events = await _turn(client, _config(settings=settings), '::tool Bash {"command":"echo hi"}')
    assert [failed for _, failed in _results(events)] == [True]
    assert list(start_of(events).misses) == ["no_spare"]
    before, after = json.dumps(model.asked[0]), json.dumps(model.asked[-1])
    for word in ("french", "Explanatory"):
        assert word in after
        assert word not in before


async def test_a_hook_of_the_callers_runs(client: Client, thread: ServiceThread) -> None:
    """Where the operator allows it."""
    hook = {"type": "command", "command": "cat > asked", "timeout": 10}
    settings = {"hooks": {"PreToolUse": [{"matcher": "Bash", "hooks": [hook]}]}}
    async with client.chat(config=_config(settings=settings)) as chat:
        await say(chat, '::tool Bash {"command":"echo hi"}')
        work = await work_of(thread.service, chat.session_id)
        assert json.loads((work / "asked").read_text())["tool_name"] == "Bash"


def _debug_logs(events: list[pb.Event]) -> list[str]:
    return [e.debug_log.text for e in events if e.HasField("debug_log")]


async def test_the_debug_log_comes_before_the_turns_end_and_holds_no_secret(
    client: Client,
) -> None:
    """Each turn has its own part; who watches is told it too, who wants text only is not."""
    async with client.chat(config=_config(debug={})) as chat:
        turns = [await say(chat, "hi"), await say(chat, '::tool Bash {"command":"echo hi"}')]
        session_id = chat.session_id
        logs = [_debug_logs(events) for events in turns]
        assert [len(log) for log in logs] == [1, 1]
        assert [events[-2].HasField("debug_log") for events in turns] == [True, True]
        assert list(start_of(turns[0]).misses) == ["debug"]
        (first,), (second,) = logs
        assert "MDM settings load" in first
        assert "MDM settings load" not in second
        assert "Bash" in second
        for secret in (PLACEHOLDER, "/sock"):
            assert secret not in first + second
        watched = [
            e.debug_log.text
            async for e in client.watch(session_id, replay_only=True)
            if e.HasField("debug_log")
        ]
        assert watched == [first, second]
    async with client.chat(config=_config(debug={}), detail=chat_pb.DETAIL_TEXT) as chat:
        assert not _debug_logs(await say(chat, "hi"))


async def test_the_debug_log_has_the_categories_that_are_asked_for(client: Client) -> None:
    """Some of them, or all but some."""
    hooks = await _turn(client, _config(debug={"categories": ["hooks"]}), "hi")
    (only,) = _debug_logs(hooks)
    assert all("hook" in line.lower() for line in only.splitlines())
    most = await _turn(client, _config(debug={"exclusions": ["hooks"]}), "hi")
    (rest,) = _debug_logs(most)
    assert len(rest) > len(only)
    assert "Hooks:" in only
    assert "Hooks:" not in rest


async def test_the_debug_log_of_a_process_that_dies_is_told(
    client: Client, thread: ServiceThread
) -> None:
    """It is what one wants to see then; the file is gone with the process."""
    async with client.chat(config=_config(debug={})) as chat:
        turn = await chat.send("::delay 30s")
        events: list[pb.Event] = []
        async for event in turn:
            events.append(event)
            if event.HasField("turn_started"):
                kill_cli(thread.service, chat.session_id)
    assert events[-1].HasField("turn_failed") or events[-1].HasField("turn_completed")
    assert _debug_logs(events)


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"plugins": [{"files": {"files": _files(_plugin("mine"))}}]}, "config.plugins[0].files"),
        ({"settingSources": ["SETTING_SOURCE_LOCAL"]}, "config.setting_sources"),
        ({"settings": {"hooks": {}}}, "config.settings.hooks"),
    ],
)
def test_what_may_run_commands_is_the_operators_to_allow(
    fields: dict[str, Any], field: str
) -> None:
    """Otherwise it is refused by name."""
    config = config_of(_config(**fields), "config", existing=False)
    policy = Policy(
        LimitSettings(),
        CliSettings(),
        McpSettings(),
        ProviderSettings(),
        own_credential=True,
        level="strict",
        levels=frozenset({"strict"}),
    )
    replace(policy, limits=LimitSettings(caller_commands=True)).check(config, "strict")
    with pytest.raises(ServiceError) as caught:
        policy.check(config, "strict")
    assert caught.value.reason is Reason.POLICY_DENIED
    assert caught.value.metadata == {"field": field}


async def test_a_plugin_that_cannot_be_loaded_is_told(client: Client) -> None:
    """Otherwise nobody knows why its parts are missing; the turn goes on."""
    files = _plugin("mine") | {"hooks/hooks.json": "{nope"}
    events = await _turn(client, _config(plugins=[{"files": {"files": _files(files)}}]), "hi")
    assert events[-1].HasField("turn_completed")
    (notice,) = [e.notice for e in events if e.HasField("notice")]
    assert notice.code == "plugin_failed"
    assert notice.kind == pb.Notice.KIND_WARNING


def test_a_plugin_of_the_operators_has_to_be_there(tmp_path: Path) -> None:
    """The service does not start otherwise, and says which."""
    with pytest.raises(ValidationError, match=r"cli\.plugins\.ours"):
        load(None, cli={"plugins": {"ours": tmp_path / "none"}})


async def test_a_plugin_that_is_not_installed_is_refused(client: Client) -> None:
    """Before anything is started."""
    with pytest.raises(WarmlineError) as caught:
        await _turn(client, _config(plugins=[{"name": "none-such"}]), "hi")
    assert list(caught.value.fields) == ["config.plugins[0].name"]
