"""Events as somebody saw them, and whether two who looked saw the same."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

from google.protobuf.message import Message
from warmline.v1 import events_pb2 as pb
from warmline_client import WarmlineError

DELTAS = ("text_delta", "thinking_delta", "tool_input_delta")
ENDS = ("turn_completed", "turn_failed")


class Seen(NamedTuple):
    """An event: `text` of a delta, of an end or of a message, `body` the whole of any but a delta."""

    seq: int
    epoch: int
    turn: str
    kind: str
    text: str = ""
    key: str = ""
    body: bytes = b""

    def __str__(self) -> str:
        return f"{self.epoch}.{self.seq} {self.kind} turn={self.turn[:8]} {self.text[:80]!r}"


def seen(event: pb.Event) -> Seen:
    """What counts of an event."""
    kind = str(event.WhichOneof("kind"))
    body = getattr(event, kind)
    text, key = "", ""
    if kind in DELTAS:
        text = body.partial_json if kind == "tool_input_delta" else body.text
        key = f"{event.parent_tool_call_id}/{body.block_index}"
        return Seen(event.seq, event.epoch, event.turn_id, kind, text, key)
    if kind == "turn_queued":
        text, key = body.text, body.idempotency_key
    elif kind == "turn_completed":
        text = body.result
    elif kind == "turn_failed":
        text, key = reason_of(body), body.idempotency_key
    whole = type(body)()
    whole.CopyFrom(body)
    if kind == "turn_failed":
        whole.ClearField("status")  # It is in the text.
    return Seen(event.seq, event.epoch, event.turn_id, kind, text, key, _bytes(whole))


def _bytes(message: Message) -> bytes:
    return bytes(message.SerializeToString(deterministic=True))


def reason_of(failed: pb.TurnFailed) -> str:
    """Why a turn failed, and whether it had begun."""
    error = WarmlineError(failed.status)
    # A map comes in any order, also inside of what is packed.
    return f"{error.reason}: {error.message} {sorted(error.metadata.items())}"


def folded(events: Iterable[Seen]) -> list[Seen]:
    """The same with the deltas of one block that follow each other as one, as a replay may tell them."""
    out: list[Seen] = []
    for event in events:
        last = out[-1] if out else None
        if last is not None and event.kind in DELTAS and _one_run(last, event):
            out[-1] = event._replace(text=last.text + event.text)
        else:
            out.append(event)
    return out


def _one_run(last: Seen, event: Seen) -> bool:
    return (last.turn, last.kind, last.key) == (event.turn, event.kind, event.key)


def disorder(events: Sequence[Seen]) -> Iterator[str]:
    """Where seqs do not rise, or epochs fall."""
    for last, event in itertools.pairwise(events):
        if event.seq <= last.seq:
            yield f"seq {event.seq} comes after {last.seq}: {event}"
        if event.epoch < last.epoch:
            yield f"epoch {event.epoch} comes after {last.epoch}: {event}"


def difference(part: Sequence[Seen], whole: Sequence[Seen]) -> str:
    """The first difference between a view and what is there up to the view's last event; or nothing.

    The last event of the view may be the first half of what is one delta in the other.
    """
    left, right = folded(part), folded(whole)
    for at, event in enumerate(left):
        if at == len(right):
            return f"seen, but not there: {event}"
        other = right[at]
        cut = at == len(left) - 1 and event.kind in DELTAS and event.seq < other.seq
        same = _one_run(event, other) and other.text.startswith(event.text) if cut else False
        if event != other and not same:
            return f"seen: {event}; there: {other}"
    return ""


def gaps(events: Sequence[Seen]) -> Iterator[tuple[Seen, Seen]]:
    """Pairs of neighbours between which a seq is missing that no joined delta explains.

    `events` are all that there are, raw ones included.
    """
    if events and events[0].seq != 1 and events[0].kind not in DELTAS:
        yield events[0]._replace(seq=0), events[0]
    for last, event in itertools.pairwise(events):
        if event.seq != last.seq + 1 and event.kind not in DELTAS:
            yield last, event
