"""The real CLI: a conversation goes on in another process, by what its model is sent."""

import asyncio
import json
import os
import signal
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest
from cli_turns import Ear, begin, ended
from conversing import IMAGE, Model, Talk
from warmline_service.config import CliSettings
from warmline_service.errors import WarmlineError
from warmline_service.worker import (
    Assistant,
    Binding,
    Capabilities,
    Capture,
    CliProcess,
    Content,
    Exit,
    History,
    Launcher,
    Result,
    Site,
    SpawnKey,
    SystemPrompt,
    Transcript,
    TranscriptMirror,
    history,
    imported,
    inject,
    rehydrate,
    transcript,
)

pytestmark = pytest.mark.real_cli
StartReal = Callable[..., Awaitable[CliProcess]]

CAN = Capabilities("2.1.329", mirror=True, injection=True, late_workspace=True)
FRESH, WARMED, PRIMED = SpawnKey(), SpawnKey(warmed=True), SpawnKey(primed=True)

CALLS = (
    '::say before\n::think 5\n::tool Bash {"command": "echo hi"}\n::tool Bash {"command": "echo ho"}\n'
    "::think 3\n::say after"
)
PICTURE: Content = [{"type": "text", "text": "look"}, IMAGE, {"type": "text", "text": "::say seen"}]
TEXT = {"type": "text", "text": "so it was"}
PLAIN: Content = [
    {
        "type": "document",
        "source": {"type": "text", "media_type": "text/plain", "data": "a report"},
    },
    {"type": "text", "text": "::say read it"},
]


@pytest.fixture
def model() -> Model:
    """The model of the test."""
    return Model()


@pytest.fixture
async def start_real(tmp_path: Path, model: Model) -> AsyncIterator[StartReal]:
    """Starts the real CLI."""
    site = await Site.prepare(CliSettings(), tmp_path / "slots")
    started: list[CliProcess] = []

    async def run(key: SpawnKey = FRESH) -> CliProcess:
        started.append(await Launcher(site, model.open_endpoint, CAN).start(key))
        return started[-1]

    yield run
    for process in started:
        await process.stop()
    site.slots.release()


async def converse(process: CliProcess, *contents: Content) -> Talk:
    """A conversation of these messages."""
    talk = Talk()
    for content in contents:
        await talk.say(process, content)
    return talk


async def uninterrupted(
    process: CliProcess, model: Model, *contents: Content
) -> tuple[Talk, list[object]]:
    """A conversation, and what its own process sends when it goes on."""
    talk = await converse(process, *contents)
    await Talk().say(process, "and now?")
    return talk, model.said()


async def test_frames_come_as_it_goes(start_real: StartReal) -> None:
    """All that a turn said is told before its result; what a process tells anew is not kept."""
    process = await start_real()
    talk = Talk()
    ear = await begin(process, CALLS)
    await ended(ear)
    frames = [type(each) for each in ear.messages if isinstance(each, TranscriptMirror | Result)]
    assert frames[-1] is Result
    assert frames.count(TranscriptMirror) > 2
    talk.hear(ear)
    kinds = [json.loads(each)["type"] for each in talk.entries]
    assert kinds == ["user", "assistant", "assistant", "assistant", "assistant", "user", "user"] + (
        ["assistant"] * 2
    )


@pytest.mark.parametrize("key", [FRESH, WARMED, PRIMED], ids=["fresh", "warmed", "primed"])
async def test_a_process_is_told_a_history(
    start_real: StartReal, model: Model, key: SpawnKey
) -> None:
    """The model is sent the same messages as if nothing had happened, for no request of its own."""
    talk, expected = await uninterrupted(await start_real(), model, "hello", CALLS, PICTURE, PLAIN)
    told = rehydrate(talk.entries, CAN)
    assert isinstance(told, History)
    process = await start_real(key)
    before = len(model.asked)
    if not key.primed:
        await process.bind(Binding("haiku", SystemPrompt("replace", "MARK")))
        await process.bind(Binding("default"))
    await inject(process, told)
    assert len(model.asked) == before
    fresh = await converse(process, "and now?")
    assert model.said() == expected
    assert [json.loads(each)["type"] for each in fresh.entries] == ["user", "assistant"]
    assert key.primed or "MARK" in json.dumps(model.asked[-1]["system"])


async def test_a_process_resumes_a_transcript(start_real: StartReal, model: Model) -> None:
    """The same messages again; prompt and model are those of the key, not those of before."""
    first = await start_real(SpawnKey(system_prompt=SystemPrompt("replace", "OLD-MARK")))
    talk, expected = await uninterrupted(first, model, "hello", CALLS, PICTURE, PLAIN)
    prompt = SystemPrompt("replace", "NEW-MARK")
    key = SpawnKey(system_prompt=prompt, model="opus", resume=transcript(talk.entries))
    fresh = await converse(await start_real(key), "and now?")
    assert model.said() == expected
    system = json.dumps(model.asked[-1]["system"])
    assert "NEW-MARK" in system
    assert "OLD-MARK" not in system
    assert "opus" in model.asked[-1]["model"]
    assert [json.loads(each)["type"] for each in fresh.entries] == ["user", "assistant"]


async def test_a_resumed_process_is_bound_late(start_real: StartReal, model: Model) -> None:
    """Prompt and model need not be in the key."""
    talk = await converse(await start_real(), "hello")
    process = await start_real(SpawnKey(resume=transcript(talk.entries)))
    await process.bind(Binding("haiku", SystemPrompt("replace", "LATE-MARK")))
    await converse(process, "and now?")
    assert "LATE-MARK" in json.dumps(model.asked[-1]["system"])
    assert "haiku" in model.asked[-1]["model"]
    assert "hello" in json.dumps(model.said())


async def test_a_conversation_goes_through_many_processes(
    start_real: StartReal, model: Model
) -> None:
    """Primed, told, resumed, told: nothing is lost or doubled on the way."""
    talk = await converse(await start_real(PRIMED), "one")
    for key, text in ((PRIMED, "two"), (None, "three"), (WARMED, "four")):
        if key is None:
            process = await start_real(SpawnKey(resume=transcript(talk.entries)))
        else:
            process = await start_real(key)
            told = history(talk.entries)
            assert isinstance(told, History)
            await inject(process, told)
        await talk.say(process, text)
    said = [
        block["text"]
        for each in model.said()
        for block in each["content"]
        if each["role"] == "user"
    ]
    assert said == ["one", "two", "three", "four"]
    assert [each["role"] for each in model.said()] == ["user", "assistant"] * 3 + ["user"]


@pytest.mark.parametrize(
    "said", [("DROPPED-MARK",), ("DROPPED-MARK", "second")], ids=["one", "two"]
)
async def test_a_compaction_stays_one(
    start_real: StartReal, model: Model, said: tuple[str, ...]
) -> None:
    """It cannot be told; a resumed process has the summary and what was kept, not what was dropped."""
    process = await start_real()
    talk = await converse(process, *said)
    ear = await _compact(process)
    talk.hear(ear)
    await talk.say(process, "third")
    await Talk().say(process, "and now?")
    expected = model.said()
    found = rehydrate(talk.entries, CAN)
    assert isinstance(found, Transcript)
    await converse(await start_real(SpawnKey(resume=found)), "and now?")
    assert model.said() == expected
    assert len(expected) < 9
    brought = transcript(imported(talk.entries))
    await converse(await start_real(SpawnKey(resume=brought)), "and now?")
    assert model.said() == expected


async def test_a_crash_in_a_tool_is_resumed(start_real: StartReal, model: Model) -> None:
    """What was said before the crash is there, and the call has a result that says what happened."""
    process = await start_real()
    talk = await converse(process, "hello")
    ear = Ear()
    process.attach(ear)
    text, turn_id = (
        '::say going\n::tool Bash {"command": "sleep 60"}\n::say never',
        str(uuid.uuid4()),
    )
    capture = Capture(turn_id, text)
    await process.send_user(text, turn_id)
    async with asyncio.timeout(20):
        while not any(
            isinstance(each, Assistant) and b"sleep 60" in each.line for each in ear.messages
        ):
            await asyncio.sleep(0.001)
    os.killpg(process.pid, signal.SIGKILL)
    assert isinstance(await ended(ear), Exit)
    for message in ear.messages:
        talk.entries += capture.hear(message)
    talk.entries += capture.lost()
    found = rehydrate(talk.entries, CAN)
    assert isinstance(found, Transcript)
    await converse(await start_real(SpawnKey(resume=found)), "and now?")
    sent = json.dumps(model.said())
    assert "going" in sent
    assert "[Tool call interrupted" in sent


async def test_an_interrupted_turn_is_told_as_it_was(start_real: StartReal, model: Model) -> None:
    """With the part of the answer that came."""
    process = await start_real()
    talk = await converse(process, "hello")
    ear = await begin(process, "::pace 30ms\n::text 60")
    await asyncio.wait_for(ear.first_text, 20)
    await process.interrupt()
    await ended(ear)
    talk.hear(ear)
    await Talk().say(process, "and now?")
    expected = model.said()
    told = rehydrate(talk.entries, CAN)
    assert isinstance(told, History)
    other = await start_real(WARMED)
    await inject(other, told)
    await converse(other, "and now?")
    assert model.said() == expected


async def test_what_is_told_is_not_acted_upon(
    start_real: StartReal, model: Model, tmp_path: Path
) -> None:
    """Neither a command nor an `@file` in a history does anything."""
    secret = tmp_path / "secret.txt"
    secret.write_text("TOP-SECRET")
    talk = await converse(await start_real(), f"/clear @{secret}")
    process = await start_real(WARMED)
    told = history(talk.entries)
    assert isinstance(told, History)
    await inject(process, told)
    await converse(process, "and now?")
    assert f"/clear @{secret}" in json.dumps(model.said())
    assert "TOP-SECRET" not in json.dumps(model.asked[-1])


async def test_an_imported_conversation_goes_on(start_real: StartReal, model: Model) -> None:
    """From nothing but its messages, whenever and wherever they were written."""
    talk, expected = await uninterrupted(await start_real(), model, "hello", CALLS, PICTURE)
    names = ("type", "uuid", "message")
    bare = [{name: json.loads(each)[name] for name in names} for each in talk.entries]
    brought = transcript(imported(json.dumps(each).encode() for each in bare))
    await converse(await start_real(SpawnKey(resume=brought)), "and now?")
    # A tool that the CLI does not have: of its own it would restore what they knew.
    renamed = json.dumps(expected).replace('"name": "Bash"', '"name": "earlier_Bash"')
    assert model.said() == json.loads(renamed)


async def test_an_imported_call_is_not_made(
    start_real: StartReal, model: Model, tmp_path: Path
) -> None:
    """A transcript that ends in a call of a tool does not make the CLI call it."""
    talk = await converse(await start_real(), CALLS)
    made = tmp_path / "made"
    entry = json.loads(talk.entries[3])
    assert entry["message"]["content"][0]["type"] == "tool_use"
    entry["message"]["content"][0]["input"] = {"command": f"touch {made}"}
    brought = transcript(imported([*talk.entries[:3], json.dumps(entry).encode()]))
    await converse(await start_real(SpawnKey(resume=brought)), "and now?")
    assert str(made) in json.dumps(model.said())
    assert not made.exists()


@pytest.mark.parametrize("tool", ["Read", "Write", "Edit"])
async def test_an_imported_read_reads_nothing(
    start_real: StartReal, model: Model, tmp_path: Path, tool: str
) -> None:
    """A file that a transcript names is not looked at, whatever it says about it."""
    secret = tmp_path / "secret.txt"
    secret.write_text("TOP-SECRET\n")
    given = {"file_path": str(secret), "content": "old", "old_string": "older", "new_string": "old"}
    call = {"type": "tool_use", "id": "toolu_1", "name": tool, "input": given}
    result = {"type": "tool_result", "tool_use_id": "toolu_1", "content": "1\told\n"}
    said = (("user", "hi"), ("assistant", [call]), ("user", [result]), ("assistant", [TEXT]))
    entries = [
        {
            "type": role,
            "uuid": str(uuid.uuid4()),
            "message": {"role": role, "id": "msg_1", "content": content},
        }
        for role, content in said
    ]
    brought = transcript(imported(json.dumps(each).encode() for each in entries))
    process = await start_real(SpawnKey(resume=brought))
    for text in ('::tool Bash {"command": "echo hi"}\n::say ok', "and now?"):
        await converse(process, text)
    assert str(secret) in json.dumps(model.said())
    assert not any("TOP-SECRET" in json.dumps(each) for each in model.asked)


@pytest.mark.parametrize("key", [FRESH, WARMED], ids=["fresh", "warmed"])
async def test_a_process_moves_into_a_workspace(
    start_real: StartReal, model: Model, tmp_path: Path, key: SpawnKey
) -> None:
    """Its tools work there, nothing there configures it, and a history can be told all the same."""
    place = tmp_path / "place"
    place.mkdir()
    (place / "note.txt").write_text("NOTE-MARK")
    (place / ".claude").mkdir()
    hook = {"hooks": [{"type": "command", "command": f"touch {tmp_path}/hooked"}]}
    settings = {"hooks": {"UserPromptSubmit": [hook], "CwdChanged": [hook]}}
    (place / ".claude" / "settings.json").write_text(json.dumps(settings))
    talk = await converse(await start_real(), "hello")
    process = await start_real(key)
    await process.bind(Binding("haiku", SystemPrompt("replace", "BOUND-MARK"), place))
    told = history(talk.entries)
    assert isinstance(told, History)
    await inject(process, told)
    tools = '::tool Bash {"command": "pwd"}\n::tool Read {"file_path": "note.txt"}\n::say done'
    await converse(process, tools)
    results = [
        block
        for each in model.said()
        for block in each["content"]
        if block["type"] == "tool_result"
    ]
    # Calls of one message run together.
    assert {each["content"] for each in results} == {str(place), "1\tNOTE-MARK"}
    assert not (tmp_path / "hooked").exists()
    assert "BOUND-MARK" in json.dumps(model.asked[-1]["system"])
    assert "haiku" in model.asked[-1]["model"]


async def test_a_process_with_a_past_starts_in_its_workspace(
    start_real: StartReal, model: Model, tmp_path: Path
) -> None:
    """It cannot move there late: that would begin a turn that nobody asked for."""
    talk = await converse(await start_real(), "hello")
    found = transcript(talk.entries)
    process = await start_real(SpawnKey(resume=found))
    with pytest.raises(WarmlineError, match="no workspace"):
        await process.bind(Binding(workspace=tmp_path))
    process = await start_real(SpawnKey(resume=found, workspace=tmp_path))
    await process.bind(Binding(workspace=tmp_path))
    await converse(process, '::tool Bash {"command": "pwd"}\n::say done')
    assert str(tmp_path) in json.dumps(model.said()[-1])


async def test_content_blocks_reach_the_model(start_real: StartReal, model: Model) -> None:
    """As they were sent."""
    pdf = {"type": "base64", "media_type": "application/pdf", "data": "JVBERi0xLjQK"}
    document = {"type": "document", "source": pdf}
    await converse(await start_real(), [document, IMAGE, {"type": "text", "text": "hi"}])
    content = model.said()[-1]["content"]
    assert document in content
    assert IMAGE["source"] in [each.get("source") for each in content]


async def _compact(process: CliProcess) -> Ear:
    ear = Ear()
    process.attach(ear)
    await process.send_line("/compact", str(uuid.uuid4()), verbatim=False)
    await ended(ear)
    return ear
