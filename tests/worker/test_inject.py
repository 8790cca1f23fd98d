"""Telling a running process a history, with a fake CLI that can misbehave."""

import json
from collections.abc import Awaitable, Callable, Mapping

import pytest
from cli_turns import Ear, begin_with, ended, turn
from warmline_service.errors import Reason, WarmlineError
from warmline_service.worker import (
    Capabilities,
    CliProcess,
    History,
    Launcher,
    Result,
    Site,
    SpawnKey,
    TranscriptMirror,
    history,
    inject,
    lasting,
    probe,
    transcript,
)

Start = Callable[..., Awaitable[CliProcess]]
NewSite = Callable[..., Awaitable[Site]]


@pytest.fixture
def talked() -> list[bytes]:
    """What is stored of a conversation."""
    said = [
        ("user", "one", "1"),
        ("assistant", "two", "2"),
        ("user", "three", "3"),
        ("assistant", "4", "4"),
    ]
    stored = []
    for role, text, number in said:
        message = {"role": role, "content": [{"type": "text", "text": text}]}
        stored.append(
            json.dumps({"type": role, "uuid": f"u-{number}", "message": message}).encode()
        )
    return stored


@pytest.fixture
def told(talked: list[bytes]) -> History:
    """The same, to be told."""
    found = history(talked)
    assert isinstance(found, History)
    return found


async def remembered(process: CliProcess) -> list[str]:
    """What the process knows of the user."""
    end = await turn(process, "!bound")
    return list(json.loads(end.result or "{}")["history"])


async def test_a_history_is_remembered(start: Start, told: History) -> None:
    """As if it had been said to this process."""
    process = await start()
    await inject(process, told)
    assert await remembered(process) == ["one", "three", "!bound"]


async def test_a_transcript_is_remembered(start: Start, talked: list[bytes]) -> None:
    """The same by the other way, and it is not for anybody else."""
    key = SpawnKey(resume=transcript(talked))
    assert await remembered(await start(key)) == ["one", "three", "!bound"]
    assert key not in (SpawnKey(), SpawnKey(resume=transcript(talked)))
    assert "three" not in repr(key)
    assert key.misses(SpawnKey()) == ("resume",)


async def test_what_was_told_is_not_told_again(new_site: NewSite, told: History) -> None:
    """Whoever listens next hears of new entries only, however late the CLI tells of the others."""
    launcher = Launcher(await new_site(), _nowhere, Capabilities("2.1.329", mirror=True))
    process = await launcher.start(SpawnKey())
    try:
        await inject(process, told)
        ear = await begin_with(process, "next")
        assert isinstance(await ended(ear), Result)
    finally:
        await process.stop()
    frames = [each for each in ear.messages if isinstance(each, TranscriptMirror)]
    entries = [
        json.loads(line)["message"]["content"] for frame in frames for line in lasting(frame)
    ]
    assert entries == ["next", [{"type": "text", "text": "echo: next"}]]


async def test_a_process_that_takes_nothing_in_is_given_up(start: Start, told: History) -> None:
    """Within a deadline, and nobody listens to it any more."""
    process = await start(cli={"control_timeout": 0.1}, turn_delay=30)
    with pytest.raises(WarmlineError, match="did not take a history in within") as caught:
        await inject(process, History(told.messages[:1]))
    assert caught.value.reason is Reason.CLI_CRASHED


async def test_a_process_that_dies_meanwhile_says_so(start: Start, told: History) -> None:
    """Its end ends the wait."""
    process = await start(turn_delay=30)
    ear = Ear()
    process.attach(ear)
    process._child.signal_group(9)  # type: ignore[arg-type]  # a signal's number
    await ended(ear)
    with pytest.raises(WarmlineError) as caught:
        await inject(process, told)
    assert caught.value.reason is Reason.CLI_CRASHED


async def test_blocks_that_cannot_be_sent_are_refused(start: Start) -> None:
    """Before anything is written; the process is as it was."""
    process = await start()
    for content in ([], [{"type": "tool_result", "tool_use_id": ""}], [{"type": "image"}], [3]):
        with pytest.raises(WarmlineError) as caught:
            await process.send_user(content, "u")  # type: ignore[arg-type]  # as callers may
        assert caught.value.reason is Reason.FIELD_INVALID
    end = await ended(await begin_with(process, [{"type": "text", "text": "hi", "more": 1}]))
    assert isinstance(end, Result)
    assert end.result == "echo: hi"


async def test_a_cli_without_a_mirror_is_run_without(new_site: NewSite) -> None:
    """Nothing is captured then; all else is as it was."""
    can = await probe(await new_site(unknown=["--session-mirror"]))
    assert not can.mirror
    assert can.injection
    assert can.late_model


async def _nowhere(slot: object) -> "Nowhere":
    return Nowhere()


class Nowhere:
    """An endpoint that leads nowhere."""

    env: Mapping[str, str] = {"ANTHROPIC_BASE_URL": "http://localhost"}

    async def aclose(self) -> None:
        """Close nothing."""
