"""Finds the few frames of a streamed answer that say what was used, without parsing the others."""

from __future__ import annotations

import msgspec
import structlog

from warmline_service.config import MIB
from warmline_service.egress._account import Account
from warmline_service.egress._faults import UpstreamError, status_of
from warmline_service.egress._meter import Reading, Tokens

_log = structlog.get_logger(__name__)

# A frame that interests here is a few kilobytes long; a longer one is skipped, not kept.
_LONGEST_FRAME = 1 * MIB
# In a text these would have their quotes escaped, so hardly any other frame is looked at.
# Each of these holds a token or a few.
_DELTA = b'"content_block_delta"'
_MARKS = (b'message_start"', b'message_delta"', b'"error"')


class _Usage(msgspec.Struct):
    input_tokens: int | None = None
    output_tokens: int | None = None
    cache_read_input_tokens: int | None = None
    cache_creation_input_tokens: int | None = None

    def over(self, before: Tokens) -> Tokens:
        """These counts, and those of `before` where one is not given."""
        return Tokens(
            before.input if self.input_tokens is None else self.input_tokens,
            before.output if self.output_tokens is None else self.output_tokens,
            _or(self.cache_read_input_tokens, before.cache_read),
            _or(self.cache_creation_input_tokens, before.cache_creation),
        )


class _Message(msgspec.Struct):
    model: str = ""
    usage: _Usage | None = None


class _Error(msgspec.Struct):
    type: str = "api_error"


class _Event(msgspec.Struct):
    type: str = ""
    message: _Message | None = None
    usage: _Usage | None = None
    error: _Error | None = None


_decode_event = msgspec.json.Decoder(_Event, strict=False).decode
_decode_message = msgspec.json.Decoder(_Message, strict=False).decode


class UsageScanner:
    """Reads one answer for an account; `feed` each piece before it is passed on."""

    def __init__(self, account: Account, reading: Reading) -> None:
        self._account = account
        self._reading = reading
        self._tail = b""
        self._skipping = False
        self._deltas = 0

    def feed(self, piece: bytes) -> None:
        """Take in the next bytes of a stream, cut anywhere."""
        self._deltas += piece.count(_DELTA)
        text = self._tail + piece if self._tail else piece
        end = max(text.rfind(b"\n\n") + 2, text.rfind(b"\r\n\r\n") + 4)
        if end < 4:
            self._keep(text)
            return
        whole, self._tail = text[:end], text[end:]
        if self._skipping:
            whole = whole.replace(b"\r\n", b"\n").partition(b"\n\n")[2]
            self._skipping = False
        if any(mark in whole for mark in _MARKS):
            self._scan(whole)
        self._reading.wrote(self._deltas)

    def finish(self) -> None:
        """The stream has ended, perhaps without the blank line after its last frame."""
        if self._tail and not self._skipping:
            self._scan(self._tail)
        self._tail = b""

    def message(self, body: bytes) -> None:
        """Take in an answer that was not streamed."""
        try:
            message = _decode_message(body)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            _log.warning("answer_not_metered", slot=self._account.slot_id)
            return
        self._started(message)

    def _keep(self, text: bytes) -> None:
        self._skipping |= len(text) > _LONGEST_FRAME
        # The last bytes may be the beginning of the blank line.
        self._tail = text[-3:] if self._skipping else text

    def _scan(self, frames: bytes) -> None:
        for frame in frames.replace(b"\r\n", b"\n").split(b"\n\n"):
            if any(mark in frame for mark in _MARKS):
                self._frame(frame)

    def _frame(self, frame: bytes) -> None:
        lines = [line[5:] for line in frame.split(b"\n") if line.startswith(b"data:")]
        try:
            event = _decode_event(b"\n".join(lines))
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            _log.warning("frame_not_metered", slot=self._account.slot_id)
            return
        self._event(event)

    def _event(self, event: _Event) -> None:
        if event.type == "message_start" and event.message is not None:
            self._started(event.message)
        elif event.type == "message_delta" and event.usage is not None:
            self._reading.report(event.usage.over(self._reading.tokens))
        elif event.type == "error":
            kind = event.error.type if event.error else "api_error"
            self._account.fault = UpstreamError(status_of(kind), kind)

    def _started(self, message: _Message) -> None:
        usage = message.usage or _Usage()
        self._reading.begin(message.model, usage.over(Tokens()))


def _or(count: int | None, otherwise: int) -> int:
    return otherwise if count is None else count
