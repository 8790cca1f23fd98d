"""The command line, the environment, the binary: nothing of a caller's or the service's."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import fake_cli
import pytest
from hypothesis import given
from hypothesis import strategies as st
from warmline_service.config import CliSettings
from warmline_service.errors import Reason, WarmlineError
from warmline_service.worker import (
    Agent,
    Debug,
    Options,
    Pending,
    Plugin,
    PluginFile,
    Slot,
    SpawnKey,
    SystemPrompt,
    Transcript,
    check_model,
    find_cli,
    read_version,
)
from warmline_service.worker._argv import Files, build_argv
from warmline_service.worker._environment import build_environment
from warmline_service.worker._equipment import debug_file, plugin_folders, write_plugins

SLOT = Slot("abc", Path("/slots/abc"))
FILES = Files(SLOT.root / "system-prompt", SLOT.root / "agents.json")


@pytest.mark.parametrize("name", ["opus", "claude-opus-5-5[1m]", "qwen3:8b", "a/b@c", "us.x-v1:0"])
def test_ids_of_models_pass(name: str) -> None:
    """Every provider's way to name a model is allowed."""
    assert check_model(name) == name


@given(st.sampled_from(["-", " ", "\n", "a b", "a\n", "\u00e9", "x" * 129]), st.text())
def test_nothing_that_could_be_a_flag_is_a_model(head: str, tail: str) -> None:
    """A leading dash, a blank, a control character or too many of any is refused by name."""
    with pytest.raises(WarmlineError) as caught:
        check_model(head + tail)
    assert caught.value.violations[0].field == "model"


def test_a_system_prompt_goes_by_file() -> None:
    """A caller's text is not in the command line, which every user of the machine can read."""
    key = SpawnKey(model="haiku", system_prompt=SystemPrompt("append", "--dangerous secret"))
    argv = build_argv(Path("/claude"), key, FILES)
    assert argv[-2:] == (
        "--model=haiku",
        "--append-system-prompt-file=/slots/abc/system-prompt",
    )
    assert "secret" not in " ".join(argv)


def test_what_a_process_begins_with_that_goes_on_from_a_call() -> None:
    """It asks again whatever the session would allow, and what a caller wrote goes by file."""
    agents = {"helper": Agent("secret", "secret")}
    options = Options(
        agents=agents, allowed=("Bash",), effort="high", permission_mode="acceptEdits"
    )

    def argv(tool: str) -> tuple[str, ...]:
        pending = Pending("toolu_1", tool, {"command": "secret"}, options)
        key = SpawnKey(resume=Transcript("s", 1, b"", pending))
        return build_argv(Path("/claude"), key, FILES)

    assert argv("Bash")[-3:] == (
        "--permission-mode=default",
        "--agents=/slots/abc/agents.json",
        "--effort=high",
    )
    assert argv("ExitPlanMode")[-3] == "--permission-mode=plan"
    assert "secret" not in " ".join(argv("Bash"))


@pytest.mark.parametrize(
    ("key", "flags"),
    [
        (SpawnKey(), ["--setting-sources="]),
        (SpawnKey(setting_sources=("project", "local")), ["--setting-sources=project,local"]),
        (SpawnKey(debug=Debug()), ["--debug-file=/slots/abc/debug.log"]),
        (SpawnKey(debug=Debug(categories=("a", "b"))), ["--debug=a,b"]),
        (SpawnKey(debug=Debug(exclusions=("a", "b"))), ["--debug=!a,!b"]),
    ],
)
def test_what_is_fixed_at_a_start_is_in_the_command(key: SpawnKey, flags: list[str]) -> None:
    """By words that were checked; where nothing is asked for, nothing is honoured."""
    argv = build_argv(Path("/claude"), key, replace(FILES, debug=debug_file(SLOT)))
    assert set(flags) <= set(argv)
    assert sum(each.startswith("--setting-sources=") for each in argv) == 1


def test_a_plugin_is_where_the_operator_or_the_slot_has_it(tmp_path: Path) -> None:
    """Each of the caller's in a folder of its own, outside of where the tools work."""
    slot = Slot("abc", tmp_path)
    file = PluginFile("commands/a.md", b"hi")
    plugins = (Plugin(files=(file,)), Plugin("ours"), Plugin(files=(file,)))
    write_plugins(slot, plugins)
    folders = plugin_folders(slot, plugins, {"ours": Path("/opt/ours")})
    assert folders == (tmp_path / "plugins/0", Path("/opt/ours"), tmp_path / "plugins/2")
    assert [(place / "commands/a.md").exists() for place in folders] == [True, False, True]
    argv = build_argv(Path("/claude"), SpawnKey(plugins=plugins), replace(FILES, plugins=folders))
    assert [f"--plugin-dir={place}" for place in folders] == list(argv[-3:])
    assert not any(place.is_relative_to(slot.work) for place in folders)


def test_the_environment_is_an_allow_list(monkeypatch: pytest.MonkeyPatch) -> None:
    """None of the service's variables gets in, and the endpoint's change none of ours."""
    monkeypatch.setenv("ANTHROPIC_API_KEY", "the operator's")
    env = build_environment(SLOT, {"ANTHROPIC_UNIX_SOCKET": "s", "HOME": "/root"}, 4)
    assert sorted(env) == [
        "ANTHROPIC_UNIX_SOCKET",
        "CLAUDE_CODE_DISABLE_BACKGROUND_TASKS",
        "CLAUDE_CODE_DISABLE_CRON",
        "CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC",
        "CLAUDE_CODE_MAX_RETRIES",
        "CLAUDE_CODE_TMPDIR",
        "CLAUDE_CONFIG_DIR",
        "DISABLE_AUTOUPDATER",
        "HOME",
        "LANG",
        "PATH",
        "TMPDIR",
        "WARMLINE_SLOT",
    ]
    assert env["HOME"] == "/slots/abc/home"


@pytest.mark.parametrize(
    ("make", "problem"),
    [
        (lambda path: None, "does not exist"),
        (lambda path: path.mkdir(), "is not a file"),
        (lambda path: path.touch(mode=0o600), "is not executable"),
    ],
)
def test_a_bad_cli_path_says_what_to_do(
    tmp_path: Path, make: Callable[[Path], None], problem: str
) -> None:
    """CLI_NOT_FOUND names the setting, the path and the way out."""
    path = tmp_path / "claude"
    make(path)
    with pytest.raises(WarmlineError, match=f"cli.path: {path} {problem}.*pip install") as caught:
        find_cli(CliSettings(path=path))
    assert caught.value.reason is Reason.CLI_NOT_FOUND


def test_the_bundled_cli_is_found() -> None:
    """Without a setting the binary in claude-agent-sdk is used."""
    assert find_cli(CliSettings()).parts[-2:] == ("_bundled", "claude")


async def test_the_version_is_read(tmp_path: Path) -> None:
    """`--version` of a supported CLI gives its version."""
    assert await read_version(fake_cli.install(tmp_path)) == "2.1.329"


@pytest.mark.parametrize("version", ["2.1.299", "1.9.400", "3.0.0", "hello"])
async def test_an_unsupported_version_is_refused(tmp_path: Path, version: str) -> None:
    """CLI_NOT_FOUND says what was found."""
    with pytest.raises(WarmlineError, match=version) as caught:
        await read_version(fake_cli.install(tmp_path, version=version))
    assert caught.value.reason is Reason.CLI_NOT_FOUND
