"""Transcripts from several processes, as one file to resume or as messages to tell."""

import json
import uuid
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from warmline_service.worker import (
    Capabilities,
    Capture,
    CliMessage,
    History,
    Options,
    Pending,
    Transcript,
    TranscriptMirror,
    Unfit,
    decode,
    going_on,
    history,
    lasting,
    rehydrate,
    transcript,
    unanswered,
)

CAN = Capabilities("2.1.329", injection=True)


def entry(kind: str, parent: str | None = None, **more: object) -> dict[str, Any]:
    """An entry as the CLI writes it."""
    head = {"type": kind, "uuid": str(uuid.uuid4()), "parentUuid": parent, "isSidechain": False}
    return head | {"cwd": "/old", "gitBranch": "HEAD", "sessionId": "old"} | more


def user(content: object = "hello", **more: Any) -> dict[str, Any]:
    """A message of the user."""
    return entry("user", message={"role": "user", "content": content}, **more)


def assistant(*blocks: object, **more: Any) -> dict[str, Any]:
    """A message of the model."""
    content = list(blocks) or [{"type": "text", "text": "hi"}]
    return entry("assistant", message={"role": "assistant", "id": "m", "content": content}, **more)


def attachment(kind: str, **more: Any) -> dict[str, Any]:
    """An attachment."""
    return entry("attachment", attachment={"type": kind}, **more)


def call(name: str, number: str = "1") -> dict[str, Any]:
    """A call of a tool."""
    return {"type": "tool_use", "id": f"toolu_{number}", "name": name, "input": {}}


def result(content: object = "done", number: str = "1") -> dict[str, Any]:
    """Its result."""
    return {"type": "tool_result", "tool_use_id": f"toolu_{number}", "content": content}


def lines(*entries: object) -> list[bytes]:
    """The entries as lines."""
    return [json.dumps(each).encode() for each in entries]


def written(*entries: object) -> list[dict[str, Any]]:
    """What a process is given to resume."""
    made = transcript(lines(*entries))
    assert made is not None
    return [json.loads(line) for line in made.text.splitlines()]


def why_not(*entries: object) -> str:
    """Why these cannot be told."""
    found = history(lines(*entries))
    assert isinstance(found, Unfit), found
    return found.why


def mirror(*entries: object, path: str = "/c/projects/p/s.jsonl") -> TranscriptMirror:
    """A frame."""
    line = {"type": "transcript_mirror", "filePath": path, "entries": entries}
    found = decode(json.dumps(line).encode())
    assert isinstance(found, TranscriptMirror)
    return found


def test_what_lasts_is_kept() -> None:
    """Messages, compactions and attachments that no process makes again; each as it was written."""
    kept = [
        user(),
        assistant(),
        attachment("queued_command"),
        entry("system", subtype="compact_boundary"),
    ]
    gone = [
        attachment("environment"),
        attachment("prompt_snapshot"),
        {"type": "queue-operation", "operation": "enqueue", "content": "x", "sessionId": "s"},
        {"type": "last-prompt", "lastPrompt": "x"},
        user(isSidechain=True),
        {"type": "user", "uuid": 3},
        "no entry",
        7,
    ]
    assert lasting(mirror(*kept, *gone)) == [json.dumps(each).encode() for each in kept]


def test_nothing_of_a_sub_agent_is_kept() -> None:
    """Its answer is in the conversation."""
    assert lasting(mirror(user(), path="/c/projects/p/s/subagents/agent-a.jsonl")) == []


def test_a_frame_without_fields_is_empty() -> None:
    """An older or newer version's frame breaks nothing."""
    found = decode(b'{"type": "transcript_mirror"}')
    assert isinstance(found, TranscriptMirror)
    assert lasting(found) == []


def test_an_entry_after_another_process_is_linked_to_the_one_before() -> None:
    """Its parent is one that only that process had."""
    first, second = user(), assistant()
    second["parentUuid"] = first["uuid"]
    third = user("again", parent=str(uuid.uuid4()))
    fourth = user("from nowhere")
    found = written(first, second, third, fourth)
    assert [each["parentUuid"] for each in found] == [None, *(each["uuid"] for each in found[:-1])]


def test_results_of_calls_made_together_keep_their_parents() -> None:
    """A parent that is there stays, whatever lies between."""
    calls = assistant(call("Bash")), assistant(call("Bash", "2"))
    calls[1]["parentUuid"] = calls[0]["uuid"]
    results = (
        user([result()], parent=calls[0]["uuid"]),
        user([result(number="2")], parent=calls[1]["uuid"]),
    )
    found = written(*calls, *results)
    assert [each["parentUuid"] for each in found[2:]] == [calls[0]["uuid"], calls[1]["uuid"]]


def test_a_compaction_is_a_beginning() -> None:
    """It has no parent, and names only messages that are there."""
    before = user(), assistant()
    gone = str(uuid.uuid4())
    kept = {"anchorUuid": gone, "uuids": [before[1]["uuid"]], "allUuids": [before[1]["uuid"], gone]}
    segment = {"headUuid": before[1]["uuid"], "anchorUuid": gone, "tailUuid": gone}
    metadata = {"trigger": "auto", "preservedMessages": kept, "preservedSegment": segment}
    found = written(*before, entry("system", subtype="compact_boundary", compactMetadata=metadata))[
        2
    ]
    assert found["parentUuid"] is None
    assert found["compactMetadata"]["preservedMessages"]["allUuids"] == [before[1]["uuid"]]
    assert found["compactMetadata"]["preservedSegment"]["tailUuid"] == before[1]["uuid"]


def test_a_place_is_not_carried_over() -> None:
    """Neither the directory nor the session of the process that wrote it."""
    made = transcript(lines(user()))
    assert made is not None
    (found,) = (json.loads(line) for line in made.text.splitlines())
    assert found["sessionId"] == made.session_id
    assert not {"cwd", "gitBranch"} & set(found)


def test_a_transcript_shows_nothing_of_itself() -> None:
    """It may be in a log, as part of a key; it equals only itself."""
    made, other = transcript(lines(user("secret"))), transcript(lines(user("secret")))
    assert "secret" not in repr(made)
    assert made != other


def test_nothing_makes_no_transcript() -> None:
    """There is nothing to go on with."""
    assert transcript([]) is None
    assert transcript([b"junk", b"{}", b'{"type": "attachment"}']) is None
    assert rehydrate([], CAN) is None


def test_a_conversation_is_told_in_order() -> None:
    """Each message as it was, calls and results included; what processes tell anew is left out."""
    note = user([{"type": "text", "text": "[Image: source: /old/1.png]"}], isMeta=True)
    asked, called, answered = user(), assistant(call("Bash")), user([result()])
    found = history(lines(asked, attachment("date"), note, called, answered, assistant()))
    assert isinstance(found, History)
    assert [each.uuid for each in found.messages[:3]] == [
        each["uuid"] for each in (asked, called, answered)
    ]
    assert json.loads(found.messages[1].message) == called["message"]


@pytest.mark.parametrize(
    ("entries", "why"),
    [
        ([user()], "a message without an answer"),
        ([user(), user(), assistant()], "a message without an answer"),
        ([user(), assistant(call("Bash"))], "a tool call without a result"),
        ([user(), assistant(call("Bash")), user(), assistant()], "a tool call without a result"),
        ([user([result()]), assistant()], "a result without a tool call"),
        ([user(), assistant(call("Read")), user([result()]), assistant()], "a call of Read"),
        ([user(), assistant({"type": "server_tool_use"})], "a block of type server_tool_use"),
        ([user([{"type": "tool_reference"}])], "a block of type tool_reference"),
        (
            [user(), assistant(call("Bash")), user([result([{"type": "tool_reference"}])])],
            "a tool result of another kind",
        ),
        ([user(), assistant(isApiErrorMessage=True)], "a turn that failed"),
        ([user(isCompactSummary=True)], "a summary in place of messages"),
        ([user(isMeta=True)], "a message of the CLI's own"),
        ([user({"x": 1})], "content of another shape"),
        ([user(), attachment("queued_command")], "an entry of type attachment queued_command"),
        ([entry("system", subtype="compact_boundary")], "an entry of type system compact_boundary"),
        ([{"type": "content-replacement"}], "an entry of type content-replacement"),
    ],
)
def test_what_cannot_be_told_is_resumed(entries: list[dict[str, Any]], why: str) -> None:
    """With the reason."""
    assert why_not(*entries) == why
    assert not isinstance(rehydrate(lines(*entries), CAN), History)


def test_an_interrupted_turn_can_be_told() -> None:
    """What the user cut short needs no answer."""
    marker = user([{"type": "text", "text": "[Request interrupted by user]"}])
    assert isinstance(history(lines(user(), assistant(), marker)), History)


@pytest.mark.parametrize("turns", [40, 41])
def test_a_long_conversation_is_resumed(turns: int) -> None:
    """A message that is told takes its time; at some length a new process is there sooner."""
    found = rehydrate(lines(*[user(), assistant()] * 0, *_turns(turns)), CAN)
    assert isinstance(found, History if turns == 40 else Transcript)


def test_a_large_conversation_is_resumed() -> None:
    """The same for its size."""
    found = rehydrate(lines(user("x" * 5_000_000), assistant()), CAN)
    assert isinstance(found, Transcript)


def test_without_injection_everything_is_resumed() -> None:
    """That needs nothing but a flag."""
    found = rehydrate(lines(user(), assistant()), Capabilities("2.1.329"))
    assert isinstance(found, Transcript)


def _turns(count: int) -> list[dict[str, Any]]:
    return [each for _ in range(count) for each in (user(), assistant())]


def shown(kind: str, name: str, **more: object) -> CliMessage:
    """A line of the CLI that shows a message."""
    message = {"role": kind, "content": [{"type": "text", "text": name}]}
    return decode(json.dumps({"type": kind, "uuid": name, "message": message} | more).encode())


def test_what_was_shown_and_not_told_is_not_lost() -> None:
    """After a crash it is stored from the lines that showed it, the turn's own message included."""
    capture = Capture("asked", "hello")
    lines_heard = [shown("assistant", "a"), shown("assistant", "b"), shown("user", "c")]
    assert [capture.hear(each) for each in lines_heard] == [[]] * 3
    assert len(capture.hear(mirror(user(uuid="asked"), assistant(uuid="a")))) == 2
    assert [json.loads(each)["uuid"] for each in capture.lost()] == ["b", "c"]
    assert json.loads(Capture("asked", "hello").lost()[0])["message"]["content"] == "hello"


def test_what_is_not_the_conversations_is_not_captured() -> None:
    """A sub-agent's messages, echoes, and lines without a name."""
    capture = Capture("asked", "hello")
    capture.hear(shown("assistant", "a", parent_tool_use_id="toolu_1"))
    capture.hear(shown("user", "b", isReplay=True))
    capture.hear(shown("user", ""))
    capture.hear(decode(b'{"type": "assistant", "uuid": "x"}'))
    assert len(capture.lost()) == 1


KINDS = st.sampled_from(
    ["user", "assistant", "system", "attachment", "mode", "content-replacement"]
)
IDS = st.sampled_from([str(uuid.UUID(int=number)) for number in range(8)])
ENTRIES = st.fixed_dictionaries(
    {"type": KINDS},
    optional={
        "uuid": IDS,
        "parentUuid": st.none() | IDS,
        "subtype": st.sampled_from(["compact_boundary", "other"]),
        "isSidechain": st.booleans(),
        "message": st.fixed_dictionaries(
            {"role": KINDS, "content": st.text() | st.lists(st.integers())}
        ),
        "attachment": st.fixed_dictionaries({"type": st.sampled_from(["date", "queued_command"])}),
        "compactMetadata": st.none() | st.dictionaries(st.text(), st.none() | st.lists(IDS)),
        "cwd": st.text(),
    },
)


@given(st.lists(ENTRIES))
def test_every_chain_is_whole(entries: list[dict[str, Any]]) -> None:
    """Each entry's parent comes before it, each is there once, and only beginnings have none."""
    made = transcript(msgspec.json.encode(each) for each in entries)
    seen: list[str] = []
    for line in made.text.splitlines() if made else []:
        found = json.loads(line)
        if "uuid" not in found:
            continue
        parent = found["parentUuid"]
        assert (
            parent in seen if parent else (not seen or found.get("subtype") == "compact_boundary")
        )
        assert found["uuid"] not in seen
        seen.append(found["uuid"])


@given(st.lists(ENTRIES), st.integers(0, 20))
def test_frames_may_be_cut_anywhere(entries: list[dict[str, Any]], cut: int) -> None:
    """What is stored does not depend on how the CLI groups it."""
    whole = lasting(mirror(*entries))
    parts = lasting(mirror(*entries[:cut])) + lasting(mirror(*entries[cut:]))
    assert _without_id(transcript(whole)) == _without_id(transcript(parts))


@given(st.lists(st.binary() | ENTRIES.map(msgspec.json.encode)))
def test_nothing_that_is_stored_makes_it_crash(stored: list[bytes]) -> None:
    """It is told, resumed or left out."""
    found = rehydrate(stored, CAN)
    assert found is None or isinstance(found, History | Transcript)


def _without_id(made: Transcript | None) -> list[Any]:
    found = [json.loads(line) for line in made.text.splitlines()] if made else []
    return [{name: value for name, value in each.items() if name != "sessionId"} for each in found]


ALONE = [user(), assistant(call("Bash"))]


@pytest.mark.parametrize(
    ("entries", "open_calls"),
    [
        ([], set()),
        ([user(), assistant()], set()),
        (ALONE, {"toolu_1"}),
        ([*ALONE, user([result()])], set()),
        # One answer of the model is several entries.
        ([*ALONE, assistant(call("Bash", "2"))], {"toolu_1", "toolu_2"}),
        ([*ALONE, assistant(call("Bash", "2")), user([result()])], {"toolu_2"}),
    ],
)
def test_calls_without_a_result(entries: list[dict[str, Any]], open_calls: set[str]) -> None:
    """Those of the model's last answer: of earlier ones none comes any more."""
    earlier = [user(), assistant(call("Bash", "0"))]
    earlier[1]["message"]["id"] = "earlier"
    lines = [json.dumps(each).encode() for each in (*earlier, user("next"), *entries)]
    assert unanswered([b"no entry", *lines]) == (open_calls if entries else {"toolu_0"})


def test_a_call_is_marked_where_a_process_goes_on_from_it() -> None:
    """At the end, after all that was said, and nowhere in what is stored."""
    pending = Pending("toolu_1", "Bash", {"command": "x"}, Options())
    lines = [json.dumps(each).encode() for each in ALONE]
    made = going_on(lines, pending)
    assert made is not None
    assert made.pending is pending
    *said, last = map(json.loads, made.text.splitlines())
    assert [each["type"] for each in said] == ["user", "assistant"]
    assert last["parentUuid"] == said[-1]["uuid"]
    assert (last["attachment"]["type"], last["attachment"]["toolUseID"]) == (
        "hook_deferred_tool",
        "toolu_1",
    )
    plain = transcript(lines)
    assert plain is not None
    assert plain.pending is None
    assert b"hook_deferred_tool" not in plain.text
