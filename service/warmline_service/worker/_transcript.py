"""A conversation's transcript: what is kept of it, and the file from which another process goes on."""

from __future__ import annotations

import itertools
import uuid
from collections.abc import Iterable, Iterator, Set
from dataclasses import dataclass, field
from typing import Any

import msgspec
from msgspec import Raw, Struct

from warmline_service.worker._decode import repair
from warmline_service.worker._messages import TranscriptMirror
from warmline_service.worker._pending import Pending

# What carries context, or links what does. The rest is the CLI's own bookkeeping of one process.
_LASTING = frozenset({"user", "assistant", "system", "attachment", "content-replacement"})

# What every process tells the model by itself in its first turn; a stored one would name directories
# that are gone, tools that it has not, and a system prompt that may have changed.
RENEWED = frozenset(
    {
        "agent_listing_delta",
        "auto_mode",
        "date",
        "deferred_tools_delta",
        "environment",
        "model",
        "prompt_snapshot",
        "remote_session_change",
        "session_context",
        "skill_listing",
        "total_tokens_reminder",
    }
)

COMPACTION = "compact_boundary"

# Before the name of a tool that was called elsewhere: a tool that the CLI does not have.
EARLIER = "earlier_"

# The CLI does not read an entry without a time.
NO_TIME = "1970-01-01T00:00:00.000Z"

# Stored where a process went on without what was before; no entry of the CLI's, which never sees it.
FORGOTTEN = b'{"type":"warmline-forgotten"}'

# They say where an entry was written, which is not where it will be read.
_PLACE = ("cwd", "gitBranch", "slug")


class Attachment(Struct):
    """What an entry of type `attachment` attaches."""

    type: str = ""


class Body(Struct):
    """An entry's message, as the API has it; `content` is a string or a list of blocks."""

    role: str = ""
    id: str = ""
    model: str = ""
    content: Raw = Raw(b'""')


class Entry(Struct, rename="camel"):
    """One line of a transcript, of which this service reads what it needs."""

    type: str = ""
    uuid: str = ""
    parent_uuid: str | None = None
    subtype: str = ""
    is_meta: bool = False
    is_sidechain: bool = False
    is_compact_summary: bool = False
    is_api_error_message: bool = False
    attachment: Attachment | None = None
    message: Body | None = None

    @property
    def lasts(self) -> bool:
        """Whether a later process needs it."""
        if self.is_sidechain or self.type not in _LASTING:
            return False
        return self.attachment is None or self.attachment.type not in RENEWED


@dataclass(frozen=True, eq=False)
class Transcript:
    """A transcript that the CLI can resume, under a session id of its own; equal only to itself.

    `pending`: the call at its end that the CLI asks about by itself as soon as it has started.
    """

    session_id: str
    entries: int
    text: bytes = field(repr=False)
    pending: Pending | None = None


_entries = msgspec.json.Decoder(Entry)
_objects = msgspec.json.Decoder(dict[str, Raw])


def read_entry(line: bytes) -> Entry | None:
    """The entry in a line; None for what is not one."""
    try:
        return _entries.decode(line)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return None


def read_entries(lines: Iterable[bytes]) -> Iterator[tuple[bytes, Entry]]:
    """The lines that a later process needs, each once, in order."""
    seen: set[str] = set()
    for line in lines:
        entry = read_entry(line)
        if entry is None or not entry.lasts or entry.uuid in seen:
            continue
        if entry.uuid:
            seen.add(entry.uuid)
        yield line, entry


def lasting(mirror: TranscriptMirror) -> list[bytes]:
    """What to store of a frame: the entries that a later process needs, a line without newline each.

    Nothing of a sub-agent's: what it answered is in the conversation.
    """
    if mirror.of_sub_agent:
        return []
    return [line for line, _ in read_entries(map(bytes, mirror.entries))]


def entries_before(mirror: TranscriptMirror, uuid: str) -> tuple[TranscriptMirror, bool]:
    """The frame up to the entry with this uuid, without it; and whether it was there."""
    for at, raw in enumerate(mirror.entries):
        entry = read_entry(bytes(raw))
        if entry is not None and entry.uuid == uuid:
            return TranscriptMirror(mirror.line, mirror.file_path, mirror.entries[:at]), True
    return mirror, False


def without(mirror: TranscriptMirror, uuids: Set[str]) -> tuple[TranscriptMirror, set[str]]:
    """The frame without the entries that have one of these uuids, and those that it had."""
    found: set[str] = set()
    kept: list[Raw] = []
    for raw in mirror.entries:
        entry = read_entry(bytes(raw))
        if entry is not None and entry.uuid in uuids:
            found.add(entry.uuid)
        else:
            kept.append(raw)
    return TranscriptMirror(mirror.line, mirror.file_path, kept), found


def transcript(lines: Iterable[bytes], pending: Pending | None = None) -> Transcript | None:
    """One conversation out of what its processes wrote, in order; None where there is nothing.

    `pending` is the call that it ends with, if a process is to go on from there. A parent that is not
    among them is replaced by the entry before, so that the chain holds from one process to the next; a
    compaction stays the new beginning that it is.
    """
    session_id = str(uuid.uuid4())
    written: list[bytes] = []
    known: set[str] = set()
    last: str | None = None
    marked = itertools.chain(lines, () if pending is None else [_marker(pending)])
    for line, entry in read_entries(marked):
        fields = _fields(line)
        if entry.uuid:
            fields["parentUuid"] = _json(_parent(entry, known, last))
            known.add(entry.uuid)
            last = entry.uuid
        if entry.subtype == COMPACTION and "compactMetadata" in fields:
            fields["compactMetadata"] = _compaction(fields["compactMetadata"], known)
        for name in _PLACE:
            fields.pop(name, None)
        fields.setdefault("timestamp", _json(NO_TIME))
        fields["sessionId"] = _json(session_id)
        # A newline can only be between the tokens of a valid line.
        written.append(msgspec.json.encode(fields).replace(b"\n", b" "))
    if last is None:
        return None
    text = b"".join(line + b"\n" for line in written)
    return Transcript(session_id, len(written), text, pending)


def _marker(pending: Pending) -> bytes:
    entry = {"type": "attachment", "uuid": str(uuid.uuid4()), "isSidechain": False}
    return msgspec.json.encode(entry | {"attachment": pending.marker()})


def _fields(line: bytes) -> dict[str, Raw]:
    try:
        return _objects.decode(line)
    except (msgspec.MsgspecError, UnicodeDecodeError):
        # A name that is no text, which no field of the CLI's has.
        return _objects.decode(repair(line))


def _parent(entry: Entry, known: Set[str], last: str | None) -> str | None:
    if entry.parent_uuid in known:
        return entry.parent_uuid
    return None if entry.subtype == COMPACTION else last


def _compaction(metadata: Raw, known: Set[str]) -> Raw:
    """The same with only such messages named as kept that are there."""
    try:
        value = msgspec.json.decode(metadata)
    except (msgspec.MsgspecError, RecursionError):
        return Raw(b"{}")
    kept = value.get("preservedMessages") if isinstance(value, dict) else None
    if not isinstance(kept, dict):
        return metadata
    for name in ("uuids", "allUuids"):
        kept[name] = _only(kept.get(name), known)
    segment = value.get("preservedSegment")
    if isinstance(segment, dict) and kept["allUuids"]:
        segment |= {"headUuid": kept["allUuids"][0], "tailUuid": kept["allUuids"][-1]}
    return _json(value)


def _only(uuids: object, known: Set[str]) -> list[str]:
    found = uuids if isinstance(uuids, list) else []
    return [each for each in found if isinstance(each, str) and each in known]


def _json(value: Any) -> Raw:  # any JSON value
    return Raw(msgspec.json.encode(value))
