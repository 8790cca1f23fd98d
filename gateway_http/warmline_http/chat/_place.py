"""Where a stream of events is: what the `id` of an event says, and `Last-Event-ID` says back."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import Self

from warmline.v1 import chat_service_pb2 as chat_pb
from warmline.v1 import events_pb2 as events_pb

from warmline_http._events import ENDS
from warmline_http._failure import Failure

_UUID = r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}"
_FORM = re.compile(rf"([0-9]{{1,19}})-([0-9]{{1,19}})\.({_UUID})(?:\.({_UUID})(\.end)?)?")


@dataclass(frozen=True)
class Place:
    """A cursor, the session that it is of, and the turn that the stream is of; `ended` after its last event.

    Without a turn the stream is the session's, and has no end.
    """

    epoch: int
    seq: int
    session_id: str
    turn_id: str = ""
    ended: bool = False

    @classmethod
    def parse(cls, text: str) -> Self:
        """What `str` gave. Raises Failure for anything else."""
        match = _FORM.fullmatch(text)
        if match is None:
            raise Failure.field("last-event-id", "is no id of an event of this stream")
        epoch, seq, session_id, turn_id, end = match.groups()
        return cls(int(epoch), int(seq), session_id, turn_id or "", bool(end))

    def __str__(self) -> str:
        turn = f".{self.turn_id}" if self.turn_id else ""
        return f"{self.epoch}-{self.seq}.{self.session_id}{turn}{'.end' if self.ended else ''}"

    def after(self, event: events_pb.Event) -> Place:
        """The place after an event; the same where it has none of its own."""
        if not event.seq:
            return self
        ended = bool(self.turn_id) and event.WhichOneof("kind") in ENDS
        return replace(self, epoch=event.epoch, seq=event.seq, ended=ended)

    @property
    def cursor(self) -> chat_pb.Cursor:
        """As the service has it."""
        return chat_pb.Cursor(epoch=self.epoch, seq=self.seq)
