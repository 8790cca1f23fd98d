"""The real CLI, against a model of the test's own: each fact that the service leans on."""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from pathlib import Path

import psutil
import pytest
from aiohttp import web
from cli_turns import begin, turn
from warmline_service.config import CliSettings
from warmline_service.worker import (
    Binding,
    Capabilities,
    CliProcess,
    Launcher,
    Result,
    Site,
    Slot,
    SpawnKey,
    SystemPrompt,
    probe,
)

pytestmark = pytest.mark.real_cli
StartReal = Callable[..., Awaitable[CliProcess]]


class Model:
    """Answers "ok"; a message that says `wait` gets only the beginning of an answer."""

    def __init__(self) -> None:
        self.asked: list[dict[str, object]] = []
        self.open = 0

    async def answer(self, request: web.Request) -> web.StreamResponse:
        """One model request."""
        self.asked.append(await request.json())
        response = web.StreamResponse(headers={"content-type": "text/event-stream"})
        await response.prepare(request)
        await response.write(HEAD)
        if "please wait" in json.dumps(self.asked[-1]["messages"]):
            await asyncio.wait_for(asyncio.Event().wait(), 60)
        await response.write(TAIL)
        return response

    async def open_endpoint(self, slot: Slot) -> "RealEndpoint":
        """Listen on the slot's socket."""
        app = web.Application(client_max_size=2**26)
        app.router.add_post("/v1/messages", self.answer)
        runner = web.AppRunner(app, access_log=None, handler_cancellation=True)
        await runner.setup()
        await web.UnixSite(runner, str(slot.sock)).start()
        self.open += 1
        return RealEndpoint(self, runner, slot)


class RealEndpoint:
    """The slot's socket."""

    def __init__(self, model: Model, runner: web.AppRunner, slot: Slot) -> None:
        self._model = model
        self._runner = runner
        self.env: Mapping[str, str] = {
            "ANTHROPIC_UNIX_SOCKET": str(slot.sock),
            "ANTHROPIC_BASE_URL": "http://localhost",
            "ANTHROPIC_API_KEY": "placeholder",
        }

    async def aclose(self) -> None:
        """Close it."""
        self._model.open -= 1
        await self._runner.cleanup()


def event(kind: str, **fields: object) -> bytes:
    """An event of the wire format."""
    return f"event: {kind}\ndata: {json.dumps({'type': kind, **fields})}\n\n".encode()


MESSAGE: dict[str, object] = {"id": "msg_1", "type": "message", "role": "assistant", "model": "m"}
MESSAGE |= {"content": [], "stop_reason": None, "usage": {"input_tokens": 3, "output_tokens": 1}}
TEXT = {"type": "text", "text": ""}
DELTA = {"type": "text_delta", "text": "ok"}
HEAD = event("message_start", message=MESSAGE)
HEAD += event("content_block_start", index=0, content_block=TEXT)
HEAD += event("content_block_delta", index=0, delta=DELTA)
TAIL = event("content_block_stop", index=0)
TAIL += event("message_delta", delta={"stop_reason": "end_turn"}, usage={"output_tokens": 2})
TAIL += event("message_stop")


@pytest.fixture
def model() -> Model:
    """The model of the test."""
    return Model()


@pytest.fixture
async def site(tmp_path: Path) -> AsyncIterator[Site]:
    """A site with the real CLI."""
    made = await Site.prepare(CliSettings(), tmp_path / "slots")
    yield made
    made.slots.release()


@pytest.fixture
async def start_real(site: Site, model: Model) -> AsyncIterator[StartReal]:
    """Starts the real CLI."""
    started: list[CliProcess] = []

    async def run(key: SpawnKey = SpawnKey()) -> CliProcess:  # noqa: B008  # frozen
        launcher = Launcher(site, model.open_endpoint, Capabilities("2.1.329"))
        started.append(await launcher.start(key))
        return started[-1]

    yield run
    for process in started:
        await process.stop()
        assert not process.slot.root.exists()
    assert model.open == 0


async def test_it_can_do_what_the_service_leans_on(site: Site) -> None:
    """The version that is installed binds everything late."""
    can = await probe(site)
    assert can.late_model
    assert can.late_system_prompt
    assert can.priming
    assert can.unix_socket
    assert can.mirror
    assert can.injection
    assert can.goes_on
    assert can.late_workspace
    assert can.default_model in {model.id for model in can.models}
    assert "haiku" in {model.value for model in can.models}


async def test_a_spare_is_bound_and_takes_a_turn(start_real: StartReal, model: Model) -> None:
    """Nothing is asked before the first message, which then has the prompt and the model."""
    process = await start_real()
    await process.bind(Binding("haiku", SystemPrompt("replace", "PROMPT-MARK")))
    assert model.asked == []
    end = await turn(process, "hello")
    assert (end.failed, end.result, end.turn_usage is not None) == (False, "ok", True)
    (asked,) = model.asked
    assert "PROMPT-MARK" in json.dumps(asked["system"])
    assert "haiku" in str(asked["model"])


@pytest.mark.parametrize("kind", ["append", "replace"])
async def test_a_prompt_can_be_given_at_spawn(
    start_real: StartReal, model: Model, kind: str
) -> None:
    """The cold way: the same prompt through a file."""
    prompt = SystemPrompt("append" if kind == "append" else "replace", "SPAWN-MARK")
    await turn(await start_real(SpawnKey(model="haiku", system_prompt=prompt)), "hello")
    assert "SPAWN-MARK" in json.dumps(model.asked[-1]["system"])
    assert "haiku" in str(model.asked[-1]["model"])


async def test_a_primed_spare_has_no_memory(start_real: StartReal, model: Model) -> None:
    """The warm-up turn is gone from the first request of whoever gets the process."""
    process = await start_real(SpawnKey(primed=True))
    warm_up = len(model.asked)
    await process.bind(Binding("haiku"))
    end = await turn(process, "hello")
    assert len(model.asked) == warm_up + 1
    messages = json.dumps(model.asked[-1]["messages"])
    assert "hello" in messages
    assert messages.count('"role": "assistant"') == 0
    assert end.total_cost_usd < 0.01


async def test_an_interrupt_ends_the_turn_only(start_real: StartReal) -> None:
    """The turn ends as aborted, and the process goes on."""
    process = await start_real()
    ear = await begin(process, "please wait")
    await asyncio.wait_for(ear.first_text, 20)
    await process.interrupt()
    end = await asyncio.wait_for(ear.end, 60)
    assert isinstance(end, Result)
    assert end.interrupted
    await process.ping()


async def test_text_that_looks_like_a_command_is_text(
    start_real: StartReal, model: Model, tmp_path: Path
) -> None:
    """Neither a slash command nor an `@file` of a caller is acted upon."""
    secret = tmp_path / "secret.txt"
    secret.write_text("TOP-SECRET")
    process = await start_real()
    await turn(process, f"/clear @{secret}")
    messages = json.dumps(model.asked[-1]["messages"])
    assert f"/clear @{secret}" in messages
    assert "TOP-SECRET" not in messages


async def test_it_runs_with_only_the_allowed_environment(start_real: StartReal) -> None:
    """The environment of the CLI's own process, as the kernel has it."""
    process = await start_real()
    cli = psutil.Process(process.pid)
    names = set((cli.children() or [cli])[0].environ())
    ours = {"PATH", "LANG", "HOME", "TMPDIR", "DISABLE_AUTOUPDATER", "WARMLINE_SLOT"}
    assert {name for name in names if not name.startswith(("CLAUDE_CODE_", "ANTHROPIC_"))} == (
        ours | {"CLAUDE_CONFIG_DIR"}
    )


async def test_a_line_of_20_mb_is_taken(start_real: StartReal) -> None:
    """It is too long for any model, which the CLI says itself; the line harms nothing."""
    process = await start_real()
    end = await turn(process, "y" * (20 * 1024 * 1024))
    assert end.terminal_reason == "blocking_limit"
    assert (await turn(process, "shorter")).user_message_uuid
