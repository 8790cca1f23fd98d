"""What one turn adds to its conversation's transcript, lost by no crash."""

from __future__ import annotations

import msgspec
from msgspec import Raw, Struct

from warmline_service.worker._blocks import Content
from warmline_service.worker._decode import repair
from warmline_service.worker._messages import Assistant, CliMessage, TranscriptMirror, User
from warmline_service.worker._transcript import NO_TIME, lasting, read_entry


class _Line(Struct):
    message: Raw
    timestamp: str = NO_TIME


class _Said(Struct, rename="camel"):
    type: str
    uuid: str
    message: object
    timestamp: str = NO_TIME
    parent_uuid: str | None = None
    is_sidechain: bool = False


_line = msgspec.json.Decoder(_Line)


class Capture:
    """Takes every message of a turn in order, and says what is to be stored; `content` begins it.

    The CLI tells of an entry up to a tenth of a second after the line that shows it; `lost` is what a
    process that ended had shown and not told.
    """

    def __init__(self, turn_id: str, content: Content | None) -> None:
        self._shown: dict[str, bytes] = {}
        if content is not None:
            message = {"role": "user", "content": content}
            self._shown[turn_id] = msgspec.json.encode(_Said("user", turn_id, message))

    def hear(self, message: CliMessage) -> list[bytes]:
        """The entries to store now, a line without newline each."""
        if isinstance(message, TranscriptMirror):
            told = lasting(message)
            for line in told:
                entry = read_entry(line)
                if entry is not None:
                    self._shown.pop(entry.uuid, None)
            return told
        if isinstance(message, Assistant | User) and not message.parent_tool_use_id:
            self._show(message)
        return []

    def lost(self) -> list[bytes]:
        """The entries to store when the process has ended without a result."""
        return list(self._shown.values())

    def _show(self, message: Assistant | User) -> None:
        if not message.uuid or (isinstance(message, User) and message.replay):
            return
        try:
            line = _line.decode(repair(message.line))
        except (msgspec.MsgspecError, RecursionError):
            return
        said = _Said(message.type, message.uuid, line.message, line.timestamp)
        self._shown[message.uuid] = msgspec.json.encode(said)
