"""What a session tells, as server-sent events."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from dataclasses import replace

import msgspec
from warmline.v1 import events_pb2 as events_pb

from warmline_http import _sse
from warmline_http._call import Call
from warmline_http._events import ENDS
from warmline_http._failure import Failure
from warmline_http._link import Events
from warmline_http.chat._json import json_of
from warmline_http.chat._place import Place


def told(
    call: Call, events: Events, first: Sequence[events_pb.Event], place: Place
) -> AsyncGenerator[bytes, None]:
    """What is told after a place: `first`, then what `events` has, to the end of the place's turn.

    What fails is told; the last event is always `done`. Closes `events`.
    """
    telling = _Telling(call, events, place)
    return _sse.to_the_end(call, telling.chunks(first), telling.failure, telling.done)


class _Telling:
    def __init__(self, call: Call, events: Events, place: Place) -> None:
        self._call = call
        self._events = events
        self._place = place

    async def chunks(self, batch: Sequence[events_pb.Event]) -> AsyncGenerator[bytes, None]:
        try:
            yield _sse.comment("events follow")
            while True:
                parts = [await self._tell(event) for event in batch if self._is_of_it(event)]
                if parts:
                    yield b"".join(parts)
                if self._place.ended:
                    return
                batch = await self._events.read()
                if not batch:
                    raise Failure.stream_ended()
        finally:
            self._events.close()

    def failure(self, failure: Failure) -> bytes:
        """How it failed; where it may be tried again, with the time after which `EventSource` does so."""
        wait = failure.retry_after
        retry = f"retry: {max(1000, round(wait * 1000))}\n".encode() if wait is not None else b""
        return retry + _sse.failure_event(self._call, failure, "error")

    def done(self) -> bytes:
        """The last event; a turn that has not `ended` goes on, and so may the stream."""
        place = self._place
        data = {"sessionId": place.session_id, "turnId": place.turn_id, "ended": place.ended}
        return _sse.event(msgspec.json.encode(data), "done", str(place))

    async def _tell(self, event: events_pb.Event) -> bytes:
        kind = event.WhichOneof("kind") or "unknown"
        self._place = self._place.after(event)
        # What has no place of its own is told again only with what comes after it.
        named = str(self._place) if event.seq or kind == "session_opened" else ""
        chunk = _sse.event((await json_of(event)).encode(), kind, named)
        if kind in ENDS and not event.seq:
            # That of a turn whose events are not kept.
            self._place = replace(self._place, ended=True)
        if kind == "turn_failed":
            chunk += self.failure(Failure.of_status(event.turn_failed.status))
        return chunk

    def _is_of_it(self, event: events_pb.Event) -> bool:
        """A stream of a turn is not told of other turns; what is not kept is about the stream."""
        return not self._place.turn_id or not event.seq or event.turn_id == self._place.turn_id
