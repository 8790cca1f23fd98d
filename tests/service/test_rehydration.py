"""A conversation goes on with all that was said, whatever became of its process; with the real CLI."""

import asyncio
import base64
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from conversing import PNG, Model
from parking import (
    client_of,
    failure,
    is_resumed,
    kill_cli,
    notices,
    parked,
    resumed,
    say,
    start_of,
    texts,
    work_of,
)
from running import data_directory, service_in
from warmline.v1 import chat_service_pb2 as chat_pb
from warmline.v1 import events_pb2 as pb
from warmline_client import Client
from warmline_service.worker import Transcript, _history, transcript

pytestmark = pytest.mark.real_cli

CALLS = (
    '::think 5\n::tool Bash {"command": "echo hi"}\n::tool Bash {"command": "echo ho"}\n::say after'
)
SET = {"system": "MARK", "model": "haiku"}
# What a process has read is known to it alone.
READ = '::think 5\n::tool Read {"file_path": "/nothing"}\n::say after'
_CALL = '::tool Bash {"command": "echo it-was-done"}'
PICTURE = chat_pb.InputBlock(
    image=chat_pb.Media(media_type="image/png", data=base64.b64decode(PNG))
)


@pytest.fixture
def model(monkeypatch: pytest.MonkeyPatch) -> Model:
    """The model of every service of the test."""
    made = Model()
    monkeypatch.setattr("warmline_service.server.make_provider", lambda *_: made.provider)
    return made


@pytest.fixture
async def data() -> AsyncIterator[Path]:
    """A data directory."""
    with data_directory() as directory:
        yield directory


class Talk:
    """A session, said to over one service after another; the model must be sent all of it each time."""

    def __init__(self, model: Model, config: dict[str, Any]) -> None:
        self.id = ""
        self._model = model
        self._config = config
        self._sent: list[Any] = []
        self._answer = ""

    async def say(
        self, client: Client, text: str, content: tuple[chat_pb.InputBlock, ...] = ()
    ) -> list[pb.Event]:
        """A turn whose first request is the last one of before, its answer, and what is said now."""
        before = len(self._model.asked)
        config = {} if self.id else self._config
        async with client.chat(session_id=self.id, takeover=True, **config) as chat:
            self.id = chat.session_id
            events = await say(chat, text, content)
        first = self._model.said(before)
        if self._sent:
            answer = {"role": "assistant", "content": [{"type": "text", "text": self._answer}]}
            assert first[:-1] == [*self._sent, answer]
        assert first[-1]["role"] == "user"
        assert text in texts(first[-1:])
        assert len(first[-1]["content"]) == 1 + len(content)
        self._sent, self._answer = self._model.said(), events[-1].turn_completed.result
        return events


@pytest.mark.parametrize(
    ("calls", "config"),
    [(CALLS, {}), (CALLS, SET), (READ, SET)],
    ids=["injected", "injected-set", "resumed-set"],
)
async def test_a_session_goes_on_with_all_that_was_said(
    data: Path, model: Model, calls: str, config: dict[str, str]
) -> None:
    """After parking, the death of its process and a restart; told or resumed; set up as it was."""
    talk = Talk(model, config)
    async with service_in(data, pool={"idle_ttl": 0.5}) as service, client_of(service) as client:
        await talk.say(client, "hello")
        await talk.say(client, calls)
        await talk.say(client, "::say seen", (PICTURE,))
        await parked(service, talk.id)
        resumed(await talk.say(client, "after parking"))
    async with service_in(data) as service, client_of(service) as client:
        resumed(await talk.say(client, "after a restart"))
        assert is_resumed(await work_of(service, talk.id)) == (calls == READ)
        kill_cli(service, talk.id)
        await parked(service, talk.id)
        resumed(await talk.say(client, "after a kill"))
        events = await talk.say(client, "hot")
        assert start_of(events).start == pb.START_KIND_HOT
        _is_set_up(model.asked[-1], config)


def _is_set_up(asked: dict[str, Any], config: dict[str, str]) -> None:
    system = str(asked["system"])
    assert ("MARK" in system) == bool(config)
    assert ("haiku" in asked["model"]) == bool(config)


async def test_a_turn_that_was_killed_is_part_of_the_past(data: Path, model: Model) -> None:
    """What its model had said, its calls and their results are there; only its rest is missing."""
    async with (
        service_in(data) as service,
        client_of(service) as client,
        client.chat() as chat,
    ):
        await say(chat, "hello")
        turn = await chat.send(f"{_CALL}\n::delay 60s\n::say x")
        events = []
        async with asyncio.timeout(90):
            async for event in turn:
                events.append(event)
                if event.HasField("tool_result"):
                    await _asked(model, "it-was-done")
                    kill_cli(service, chat.session_id)
        assert failure(events).reason == "CLI_CRASHED"
        before = model.said()
        resumed(await say(chat, "go on"))
        after = model.said()
        assert after[: len(before)] == before
        assert texts(after)[-1] == "go on"


async def test_what_a_killed_process_had_not_yet_told_of_its_turn_is_kept(
    data: Path, model: Model
) -> None:
    """It tells of an entry a tenth of a second late; what was shown is known all the same."""
    async with (
        service_in(data) as service,
        client_of(service) as client,
        client.chat() as chat,
    ):
        turn = await chat.send(f"{_CALL}\n::delay 60s\n::say x")
        async with asyncio.timeout(90):
            async for event in turn:
                if event.HasField("tool_call"):
                    kill_cli(service, chat.session_id)
        resumed(await say(chat, "go on"))
        kinds = [block["type"] for said in model.said() for block in said["content"]]
        assert kinds[:2] == ["text", "tool_use"]
        assert texts(model.said())[-1] == "go on"


async def _asked(model: Model, text: str) -> None:
    """Wait until the model is asked with this in a tool's result."""

    def results() -> list[Any]:
        return [block for block in model.said()[-1]["content"] if block["type"] == "tool_result"]

    async with asyncio.timeout(60):
        while text not in str(results()):
            await asyncio.sleep(0.02)


async def test_a_transcript_that_cannot_be_read_does_not_end_a_session(
    data: Path, model: Model
) -> None:
    """The turn goes on and says CONTEXT_LOST, once: what is said from then on is known again."""
    async with (
        service_in(data) as service,
        client_of(service) as client,
        client.chat() as chat,
    ):
        await say(chat, READ)
        kill_cli(service, chat.session_id)
        await parked(service, chat.session_id)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(_history, "transcript_of", _unreadable)
            events = await say(chat, "and now?")
        assert notices(events) == ["context_lost"]
        assert start_of(events).start == pb.START_KIND_WARM
        assert texts(model.said()) == ["and now?"]
        kill_cli(service, chat.session_id)
        await parked(service, chat.session_id)
        resumed(await say(chat, "and then?"))
        assert texts(model.said()) == ["and now?", "and then?"]


def _unreadable(lines: list[bytes]) -> Transcript | None:
    made = transcript(lines)
    return made and replace(made, text=b"not a transcript\n")
