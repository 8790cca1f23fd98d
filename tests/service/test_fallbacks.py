"""What a CLI cannot bind late is done by a cold start, and the receipt says why."""

from pathlib import Path
from typing import Any

import fake_cli
import pytest
from running import events_of, running_client, text_of
from warmline.v1 import events_pb2 as pb


def faking(directory: Path, **scenario: Any) -> dict[str, Any]:
    """Settings of a service whose CLI is the fake one."""
    return {"path": fake_cli.install(directory / "fake", **scenario)}


async def test_a_cli_that_binds_no_model_starts_cold_with_it(tmp_path: Path) -> None:
    """The model is a spawn-time input then: COLD, and named as the miss."""
    cli = faking(tmp_path, refuse=["set_model"])
    async with running_client(cli=cli) as client, client.chat(model="haiku") as chat:
        events = await events_of(chat, "!bound")
    latency = events[-1].turn_completed.latency
    assert latency.start == pb.START_KIND_COLD
    assert "model" in latency.misses
    assert "haiku" in text_of(events)


async def test_a_cli_that_takes_no_prompt_starts_cold_with_it(tmp_path: Path) -> None:
    """So is the system prompt, where initialize is refused; sessions without one stay warm."""
    cli = faking(tmp_path, refuse=["initialize"])
    async with running_client(cli=cli) as client:
        async with client.chat(system="Be brief.") as chat:
            latency = (await events_of(chat, "hi"))[-1].turn_completed.latency
        assert latency.start == pb.START_KIND_COLD
        assert "system_prompt" in latency.misses


@pytest.mark.parametrize("prompt", [None, "Be brief."])
async def test_without_a_side_question_spares_are_fresh(tmp_path: Path, prompt: str | None) -> None:
    """A CLI that cannot be warmed up is still bound warm."""
    cli = faking(tmp_path, refuse=["side_question"])
    async with running_client(cli=cli) as client, client.chat(system=prompt or "") as chat:
        events = await events_of(chat, "hi")
    assert events[-1].turn_completed.latency.start == pb.START_KIND_WARM


async def test_warm_up_can_be_turned_off(tmp_path: Path) -> None:
    """pool.warm_up = false keeps spares as they came up."""
    pool = {"warm_up": False}
    async with running_client(cli=faking(tmp_path), pool=pool) as client, client.chat() as chat:
        latency = (await events_of(chat, "hi"))[-1].turn_completed.latency
    assert (latency.start, list(latency.misses)) == (pb.START_KIND_WARM, [])


@pytest.mark.parametrize("version", ["1.0.0", "2.1.200", "3.0.0", "nonsense"])
async def test_a_version_out_of_range_is_refused(tmp_path: Path, version: str) -> None:
    """The range that was tested is the range that runs."""
    with pytest.raises(Exception, match="CLI_NOT_FOUND"):
        async with running_client(cli=faking(tmp_path, version=version)):
            pass
