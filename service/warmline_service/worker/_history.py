"""What a running process can be told of a conversation, and which way is the better one."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass, field

import msgspec
from msgspec import Raw, Struct

from warmline_service.worker._key import Capabilities
from warmline_service.worker._pending import Pending
from warmline_service.worker._transcript import (
    EARLIER,
    FORGOTTEN,
    RENEWED,
    Body,
    Entry,
    Transcript,
    read_entries,
)
from warmline_service.worker._transcript import transcript as transcript_of

# From here on a resumed process is there sooner: see docs/decisions/0008.
INJECTION_MESSAGES = 40
INJECTION_BYTES = 4 * 1024 * 1024

# Tools that leave nothing in the CLI. Others do (which file was read, which tools were loaded), and
# only a resumed process gets that back.
_STATELESS = frozenset({"Bash", "Glob", "Grep", "WebFetch", "WebSearch"})
_FOREIGN_TOOLS = ("mcp__", EARLIER)

_CARRIED = {
    "user": frozenset({"text", "image", "document", "tool_result"}),
    "assistant": frozenset({"text", "thinking", "redacted_thinking", "tool_use"}),
}
_RESULT_PARTS = frozenset({"text", "image", "document"})
# Each process writes these notes itself when it is told an image.
_IMAGE_NOTE = "[Image: "
# The CLI speaks in the place of the model.
_SYNTHETIC = "<synthetic>"
_INTERRUPTED = "[Request interrupted by user"


@dataclass(frozen=True)
class Told:
    """One message of a history: `message` is JSON as the API has it."""

    role: str
    uuid: str
    message: bytes = field(repr=False)


@dataclass(frozen=True)
class History:
    """Messages that a running process takes in, in order."""

    messages: tuple[Told, ...]

    @property
    def size(self) -> int:
        """Their bytes together."""
        return sum(len(each.message) for each in self.messages)


@dataclass(frozen=True)
class Unfit:
    """Why a conversation cannot be told to a running process."""

    why: str


class _Part(Struct):
    type: str = ""


class _Block(Struct):
    type: str = ""
    text: str = ""
    id: str = ""
    name: str = ""
    tool_use_id: str = ""
    content: str | list[_Part] = ""


class _Whole(Struct):
    message: Raw


_blocks = msgspec.json.Decoder(str | list[_Block])
_whole = msgspec.json.Decoder(_Whole)


def rehydrate(
    lines: Iterable[bytes], can: Capabilities, answered: Collection[str] = ()
) -> History | Transcript | None:
    """The better way to give a conversation to another process; None where there is nothing to give.

    A History goes to any process that has had no turn, by `inject`; a Transcript into
    `SpawnKey.resume`. `answered` are the calls at its end that the message which follows answers: only a
    running process can be told of them. What is before a FORGOTTEN is given to none.
    """
    kept = [line for line, _ in read_entries(_remembered(list(lines)))]
    if can.injection:
        told = history(kept, answered)
        if isinstance(told, History) and (answered or _is_small(told)):
            return told if told.messages else None
    return transcript_of(kept)


def going_on(lines: Iterable[bytes], pending: Pending) -> Transcript | None:
    """A conversation up to a call that waits for an answer, for a process that goes on from there."""
    return transcript_of(_remembered(list(lines)), pending)


def _remembered(lines: list[bytes]) -> list[bytes]:
    for index in range(len(lines) - 1, -1, -1):
        if lines[index] == FORGOTTEN:
            return lines[index + 1 :]
    return lines


def history(lines: Iterable[bytes], answered: Collection[str] = ()) -> History | Unfit:
    """The messages of a conversation, or why a process that is told them would not know it all.

    `answered` are the calls at its end that the message which follows answers.
    """
    reading = _Reading()
    for line, entry in read_entries(lines):
        why = reading.take(line, entry)
        if why:
            return Unfit(why)
    return reading.unfinished(answered) or History(tuple(reading.told))


def _is_small(told: History) -> bool:
    users = sum(each.role == "user" for each in told.messages)
    return users <= INJECTION_MESSAGES and told.size <= INJECTION_BYTES


class _Reading:
    """Goes through a conversation once, and knows what is still open."""

    def __init__(self) -> None:
        self.told: list[Told] = []
        self._calls: set[str] = set()
        self._unanswered = False

    def take(self, line: bytes, entry: Entry) -> str:
        """Take the next entry; says why if it cannot be told."""
        if entry.attachment is not None and entry.attachment.type in RENEWED:
            return ""
        body = entry.message
        if entry.type not in _CARRIED or body is None or body.role != entry.type:
            kind = entry.attachment.type if entry.attachment is not None else entry.subtype
            return f"an entry of type {entry.type} {kind}".rstrip()
        if entry.is_compact_summary:
            return "a summary in place of messages"
        if entry.is_api_error_message or body.model == _SYNTHETIC:
            return "a turn that failed"
        blocks = _read(body)
        if blocks is None:
            return "content of another shape"
        if entry.is_meta:
            noted = all(block.text.startswith(_IMAGE_NOTE) for block in blocks)
            return "" if noted else "a message of the CLI's own"
        why = _foreign(entry.type, blocks) or self._pair(entry.type, blocks)
        if not why:
            message = bytes(_whole.decode(line).message)
            self.told.append(Told(entry.type, entry.uuid, message))
        return why

    def unfinished(self, answered: Collection[str] = ()) -> Unfit | None:
        """Why a conversation that ends here cannot be told."""
        if self._calls != set(answered):
            return Unfit("a tool call without a result")
        return Unfit("a message without an answer") if self._unanswered else None

    def _pair(self, role: str, blocks: list[_Block]) -> str:
        if role == "assistant":
            self._calls.update(block.id for block in blocks if block.type == "tool_use")
            self._unanswered = False
            return ""
        results = {block.tool_use_id for block in blocks if block.type == "tool_result"}
        if not results <= self._calls:
            return "a result without a tool call"
        self._calls -= results
        if results:
            self._unanswered = not self._calls
            return ""
        interrupted = blocks[0].text.startswith(_INTERRUPTED) if blocks else False
        if not interrupted and (unfinished := self.unfinished()):
            return unfinished.why
        self._unanswered = not interrupted
        return ""


def _read(body: Body) -> list[_Block] | None:
    try:
        content = _blocks.decode(body.content)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return None
    return [_Block("text", text=content)] if isinstance(content, str) else content


def _foreign(role: str, blocks: list[_Block]) -> str:
    for block in blocks:
        if block.type not in _CARRIED[role]:
            return f"a block of type {block.type}"
        if block.type == "tool_use" and not _is_stateless(block.name):
            return f"a call of {block.name}"
        parts = block.content if isinstance(block.content, list) else []
        if any(part.type not in _RESULT_PARTS for part in parts):
            return "a tool result of another kind"
    return ""


def _is_stateless(tool: str) -> bool:
    return tool in _STATELESS or tool.startswith(_FOREIGN_TOOLS)
