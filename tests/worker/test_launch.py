"""A start that fails says why, and leaves nothing."""

import asyncio
import os
import signal
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
from cli_turns import turn
from warmline_service.errors import Reason, WarmlineError
from warmline_service.worker import (
    Capabilities,
    CliProcess,
    Launcher,
    Site,
    Slot,
    SpawnKey,
    SystemPrompt,
    probe,
)
from warmline_service.worker._probe import _Trial

Start = Callable[..., Awaitable[CliProcess]]
NewSite = Callable[..., Awaitable[Site]]


class Counting:
    """An endpoint that knows whether it was closed."""

    env: dict[str, str] = {}  # noqa: RUF012  # never changed
    open = 0

    async def aclose(self) -> None:
        """Close it."""
        type(self).open -= 1


async def counted(slot: Slot) -> Counting:
    """Open one."""
    assert slot.home.is_dir()
    Counting.open += 1
    await asyncio.sleep(0)
    return Counting()


def slots_left(site: Site) -> list[str]:
    """The slots on disk."""
    return [path.name for path in site.slots.root.iterdir() if path.is_dir()]


async def test_an_exit_at_start_is_told_with_stderr(start: Start) -> None:
    """CLI_CRASHED has the exit code and what the CLI said."""
    with pytest.raises(WarmlineError, match="exited with code 3") as caught:
        await start(exit_at_start=3, stderr_at_start="bad \x1b[31mconfig\x00")
    assert caught.value.reason is Reason.CLI_CRASHED
    assert caught.value.metadata == {"exitCode": "3", "stderr": "bad [31mconfig"}


async def test_a_mute_cli_is_given_up(new_site: NewSite) -> None:
    """A start has a deadline, after which process, endpoint and slot are gone."""
    site = await new_site(mute=True, cli={"start_timeout": 0.5, "stop_timeout": 0.2})
    with pytest.raises(WarmlineError, match=r"within 0\.5 s of its start"):
        await Launcher(site, counted, Capabilities("2")).start(SpawnKey())
    assert Counting.open == 0
    assert slots_left(site) == []


async def test_a_refused_warm_up_fails_the_start(start: Start) -> None:
    """A process that could not be primed is not handed out as primed."""
    with pytest.raises(WarmlineError):
        await start(SpawnKey(primed=True), refuse=["get_session_cost"])


async def test_a_binary_that_does_not_run_is_named(new_site: NewSite) -> None:
    """What the operating system refuses is CLI_CRASHED, with its reason."""
    site = await new_site(guard=())
    site.binary.write_text("#!/no/such/interpreter\n")
    with pytest.raises(WarmlineError, match="could not be started: No such file"):
        await Launcher(site, counted, Capabilities("2")).start(SpawnKey())
    assert Counting.open == 0
    assert slots_left(site) == []


async def test_no_place_for_a_slot_is_a_storage_fault(new_site: NewSite) -> None:
    """Where the slot cannot be made the error says so, not that the CLI crashed."""
    site = await new_site()
    nowhere = Site(site.settings, site.binary, type(site.slots)(Path("/proc/none")), site.guard)
    with pytest.raises(WarmlineError) as caught:
        await Launcher(nowhere, counted, Capabilities("2")).start(SpawnKey())
    assert caught.value.reason is Reason.STORAGE_UNAVAILABLE


@pytest.mark.parametrize("seconds", [0, 0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.04, 0.08, 0.16])
async def test_a_cancelled_start_leaves_nothing(new_site: NewSite, seconds: float) -> None:
    """Wherever the cancel comes: no process, no endpoint, no slot."""
    site = await new_site(start_delay=0.1)
    launcher = Launcher(site, counted, Capabilities("2"))
    starting = asyncio.create_task(launcher.start(SpawnKey(primed=True)))
    await asyncio.wait({starting}, timeout=seconds)
    starting.cancel()
    await asyncio.wait({starting})
    if not starting.cancelled():
        await starting.result().stop()
    await launcher.aclose()
    assert Counting.open == 0
    assert slots_left(site) == []


async def test_a_prompt_at_spawn_goes_through_a_file_in_the_slot(start: Start) -> None:
    """The command line, which all may read, holds nothing of a caller's."""
    key = SpawnKey(model="haiku", system_prompt=SystemPrompt("replace", "secret plan"))
    process = await start(key)
    assert (process.slot.root / "system-prompt").read_text() == "secret plan"
    argv = (await turn(process, "!argv")).result or ""
    assert f"--system-prompt-file={process.slot.root}/system-prompt" in argv
    assert "secret" not in argv


async def test_the_probe_sees_what_the_cli_can(new_site: NewSite) -> None:
    """Each fact is tried against a model of the probe's own."""
    can = await probe(await new_site())
    assert (can.late_model, can.late_system_prompt, can.priming) == (True, True, True)
    assert can.unix_socket
    assert can.goes_on
    assert can.default_model == "claude-opus-5-5"
    assert [model.value for model in can.models] == ["default", "opus", "haiku"]


@pytest.mark.parametrize(
    ("scenario", "missing"),
    [
        ({"refuse": ["set_model"]}, {"late_model", "priming"}),
        (
            {"refuse": ["initialize"]},
            {"late_model", "priming", "late_system_prompt", "unix_socket", "goes_on"},
        ),
        (
            {"ask_model": False},
            {"late_model", "priming", "late_system_prompt", "unix_socket", "goes_on"},
        ),
        ({"no_resume": True}, {"goes_on"}),
    ],
)
async def test_what_the_cli_refuses_is_a_cold_spawn(
    new_site: NewSite, scenario: dict[str, object], missing: set[str]
) -> None:
    """A fact that does not hold is False, and the service still works without it."""
    can = await probe(await new_site(**scenario))
    facts = ("late_model", "late_system_prompt", "priming", "unix_socket", "goes_on")
    assert {name for name in facts if not getattr(can, name)} == missing


async def test_a_probe_that_is_cut_short_says_nothing(
    new_site: NewSite, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed in the middle, it is begun again: what it had not tried yet is not what the CLI lacks."""
    begin = _Trial._bind_prompt
    killed: list[int] = []

    async def kill_first(trial: _Trial) -> object:
        if not killed:
            killed.append(trial._process.pid)
            os.kill(trial._process.pid, signal.SIGKILL)
        return await begin(trial)

    monkeypatch.setattr(_Trial, "_bind_prompt", kill_first)
    can = await probe(await new_site())
    assert killed
    assert can.mirror
    assert can.priming
