"""One process from start to reap, with a CLI that misbehaves on request."""

import asyncio
import json
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
from cli_turns import Ear, begin, crash, turn
from warmline_service.errors import Reason, WarmlineError
from warmline_service.worker import (
    Binding,
    CliProcess,
    ControlRefused,
    Exit,
    Garbage,
    ProcessState,
    Result,
    SpawnKey,
    SystemPrompt,
)

Start = Callable[..., Awaitable[CliProcess]]
MIB = 1024 * 1024


async def test_a_spare_answers_and_is_nobodys(start: Start) -> None:
    """A started process answers a ping, has made no turn and holds a slot of its own."""
    process = await start()
    await process.ping()
    assert process.alive
    assert process.life.state is ProcessState.STARTING
    assert process.version == "2.1.329"
    assert process.spawn_seconds > 0
    assert process.slot.root.stat().st_mode & 0o777 == 0o700
    assert repr(process).startswith(
        f"<CliProcess {process.id} starting pid={process.pid} SpawnKey("
    )


async def test_prompt_and_model_are_bound_late(start: Start) -> None:
    """`bind` reaches the CLI before the first turn; an id it knows goes by its alias."""
    process = await start()
    await process.bind(Binding("claude-haiku-5-5", SystemPrompt("replace", "be kind")))
    bound = json.loads((await turn(process, "!bound")).result or "")
    assert bound["prompt"] == "be kind"
    assert bound["model"] == "claude-haiku-5-5"


async def test_a_primed_process_remembers_nothing(start: Start) -> None:
    """The warm-up turn is cleared before anybody gets the process."""
    process = await start(SpawnKey(primed=True))
    assert json.loads((await turn(process, "!bound")).result or "")["history"] == ["!bound"]


async def test_a_primed_process_takes_no_prompt(start: Start) -> None:
    """What would silently have no effect raises instead."""
    process = await start(SpawnKey(primed=True))
    with pytest.raises(WarmlineError, match="past its first words"):
        await process.bind(Binding(system_prompt=SystemPrompt("append", "too late")))


async def test_a_bad_model_never_reaches_the_cli(start: Start) -> None:
    """A model's name is checked before anything is written, the prompt included."""
    process = await start()
    with pytest.raises(WarmlineError) as caught:
        await process.bind(Binding("--evil", SystemPrompt("replace", "lost")))
    assert caught.value.reason is Reason.FIELD_INVALID
    assert json.loads((await turn(process, "!bound")).result or "")["prompt"] == ""


async def test_a_refused_request_is_told_from_a_crash(start: Start) -> None:
    """ControlRefused carries the CLI's sentence, and the process goes on."""
    process = await start(refuse=["set_model"])
    with pytest.raises(ControlRefused, match="Unsupported control request: set_model"):
        await process.bind(Binding("haiku"))
    await process.ping()


async def test_a_question_of_the_cli_is_answered_with_an_error(start: Start) -> None:
    """A request that nobody here can serve does not leave the CLI waiting."""
    told = json.loads((await turn(await start(), "!ask")).result or "")
    assert told["subtype"] == "error"
    assert told["error"] == "can_use_tool is not supported here"


async def test_an_interrupt_ends_the_turn_and_leaks_nothing(start: Start) -> None:
    """The turn ends as interrupted, and the next one is a turn of its own."""
    process = await start()
    ear = await begin(process, "!hang")
    await asyncio.wait_for(ear.first_text, 60)
    await process.interrupt()
    end = await asyncio.wait_for(ear.end, 60)
    assert isinstance(end, Result)
    assert end.interrupted
    assert (await turn(process, "next")).result == "echo: next"


async def test_text_goes_verbatim(start: Start) -> None:
    """A slash command in a message is text."""
    assert (await turn(await start(), "/clear")).result == "echo: /clear"


async def test_a_lone_surrogate_is_refused_by_name(start: Start) -> None:
    """Text that is no Unicode never reaches the CLI, which such a line could end."""
    process = await start()
    with pytest.raises(WarmlineError, match="lone surrogate"):
        await process.send_user("a\ud800", "u")
    await process.ping()


async def test_twenty_megabytes_pass_in_both_directions(start: Start) -> None:
    """A message and an answer of 20 MB arrive whole."""
    process = await start(ask_model=False)
    text = "y" * (20 * MIB)
    assert (await turn(process, text)).result == f"echo: {text}"


async def test_a_line_over_the_bound_ends_the_process(start: Start) -> None:
    """The exit says that the protocol was broken, and how."""
    process = await start(cli={"max_line_bytes": MIB})
    end = await crash(process, f"!big {MIB}")
    assert end.cause == f"broke the protocol: a line is longer than {MIB} bytes"
    assert end.signal == 9


async def test_a_line_that_is_no_json_ends_the_process(start: Start) -> None:
    """What wrote it is not trusted any further; the line itself is still told."""
    process = await start()
    ear = await begin(process, "!garbage")
    end = await asyncio.wait_for(ear.end, 60)
    assert isinstance(end, Exit)
    assert end.cause == "broke the protocol: a line that is not JSON"
    assert isinstance(ear.messages[-1], Garbage)


async def test_half_a_line_is_no_message(start: Start) -> None:
    """What was not ended when the process ended is dropped."""
    end = await crash(await start(), "!half")
    assert (end.code, end.cause) == (0, "ended by itself")


async def test_a_crash_carries_the_end_of_stderr(start: Start) -> None:
    """The exit, and the error of who speaks to it later, say what the CLI said."""
    process = await start()
    end = await crash(process, "!die 7")
    assert (end.code, end.cause) == (7, "exited with code 7")
    assert "dying as asked" in end.stderr_tail
    with pytest.raises(WarmlineError) as caught:
        await process.send_user("more", "u")
    assert caught.value.reason is Reason.CLI_CRASHED
    assert "dying as asked" in caught.value.metadata["stderr"]
    assert not process.alive


async def test_control_requests_fail_when_the_process_dies(start: Start) -> None:
    """Nobody waits out a deadline for an answer that cannot come."""
    process = await start(cli={"control_timeout": 60})
    await process.send_user("!die", "u")
    with pytest.raises(WarmlineError) as caught:
        await asyncio.wait_for(process.control("get_nothing_because_dead"), 60)
    assert caught.value.reason in (Reason.CLI_CRASHED, Reason.INTERNAL)


async def test_a_control_request_has_a_deadline(start: Start) -> None:
    """CLI_CRASHED names what was not answered."""
    process = await start()
    await process.send_user("!deltas 3 100", "u")
    with pytest.raises(WarmlineError, match="did not answer get_session_cost within 1e-06 s"):
        await process.control("get_session_cost", timeout=1e-6)


async def test_who_listens_too_late_hears_of_the_exit(start: Start) -> None:
    """A sink that is attached to a dead process is told at once."""
    process = await start()
    await crash(process, "!die")
    ear = Ear()
    process.attach(ear)
    assert isinstance(ear.end.result(), Exit)


async def test_what_nobody_hears_is_counted(start: Start) -> None:
    """Without a sink lines are dropped, not kept."""
    process = await start()
    await process.send_user("!deltas 5", "u")
    async with asyncio.timeout(60):
        while process.dropped < 12:
            await process.ping()


async def test_stderr_is_kept_within_its_bound(start: Start) -> None:
    """A flood neither blocks the CLI nor fills memory; its end is what is kept."""
    process = await start(cli={"stderr_bytes": 2000})
    assert (await turn(process, f"!stderr {5 * MIB}")).result == "flooded"
    await process.stop()
    tail = (await process.exited).stderr_tail
    assert tail.endswith("end of the flood")
    assert len(tail) <= 2000


async def test_memory_is_that_of_the_whole_tree(start: Start) -> None:
    """The CLI below the command that guards it counts; a process that is gone has none."""
    process = await start()
    assert await asyncio.to_thread(process.memory_bytes) > 3 * MIB
    await process.stop()
    assert process.memory_bytes() == 0


async def test_the_running_process_has_only_the_allowed_environment(start: Start) -> None:
    """What the CLI itself sees is the allow-list and nothing else."""
    process = await start()
    env = json.loads((await turn(process, "!env")).result or "")
    assert env.pop("LC_CTYPE", "C.UTF-8") == "C.UTF-8"  # Python sets it for itself
    ours = {"PATH", "LANG", "HOME", "TMPDIR", "DISABLE_AUTOUPDATER", "WARMLINE_SLOT"}
    assert {name for name in env if not name.startswith(("CLAUDE_CO", "ANTHROPIC_"))} == ours
    assert Path(env["HOME"]).parent == process.slot.root
