"""The promises, checked by what can be seen from the outside."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from warmline.v1 import session_service_pb2 as pb

from chaos.model import CountingModel
from chaos.seen import ENDS, Seen, difference, disorder, gaps
from chaos.talker import Line, Message

# A turn that was given up for want of a store leaves out what it had no place for.
_GIVEN_UP = "STORAGE_UNAVAILABLE"


@dataclass(frozen=True)
class Violation:
    """A promise that was not kept, and the events that show it."""

    session: int
    what: str
    events: Sequence[Seen] = ()


class SessionCheck:
    """Everything that is promised of one session; `journal` is all that is stored of it."""

    def __init__(
        self, line: Line, journal: Sequence[Seen], model: CountingModel, listed: pb.Session | None
    ) -> None:
        self._line = line
        self._journal = journal
        self._model = model
        self._listed = listed
        self._turns: dict[str, list[Seen]] = defaultdict(list)
        for event in journal:
            if event.turn:
                self._turns[event.turn].append(event)

    def violations(self) -> Iterator[Violation]:
        """What was not kept."""
        for what in self._line.complaints:
            yield self._wrong(what)
        yield from self._order()
        for events in self._turns.values():
            yield from self._turn(events)
        for message in self._line.messages:
            yield from self._message(message)
        yield from self._observer()
        yield from self._listing()

    def _wrong(self, what: str, events: Sequence[Seen] = ()) -> Violation:
        return Violation(self._line.number, what, events)

    def _order(self) -> Iterator[Violation]:
        for what in disorder(self._journal):
            yield self._wrong(f"journal: {what}")
        for before, event in gaps(self._journal):
            ends = [each for each in self._turns[event.turn] if each.kind in ENDS]
            if not any(end.text.startswith(_GIVEN_UP) for end in ends):
                yield self._wrong(f"journal: nothing between {before} and {event}")

    def _turn(self, events: Sequence[Seen]) -> Iterator[Violation]:
        kinds = [event.kind for event in events]
        ends = [at for at, kind in enumerate(kinds) if kind in ENDS]
        name = events[0].turn
        if len(ends) != 1:
            yield self._wrong(f"turn {name} has {len(ends)} ends", events)
        elif ends[0] != len(events) - 1:
            yield self._wrong(f"turn {name} goes on after its end", events)
        if kinds[0] != "turn_queued" and kinds != ["turn_failed"]:
            yield self._wrong(f"turn {name} begins with {kinds[0]}", events)
        if kinds.count("turn_queued") > 1:
            yield self._wrong(f"turn {name} was accepted twice", events)

    def _message(self, message: Message) -> Iterator[Violation]:
        turns = [each for each in self._turns.values() if each[0].key == message.key]
        if len(turns) > 1:
            yield self._wrong(f"{message.mark} has {len(turns)} turns", [t[0] for t in turns])
        if message.end is None:
            views = "; ".join(f"{len(view)} up to {view[-1]}" for view in message.views if view)
            what = f"{message.mark}: its client was never told an end; views: {views or 'none'}"
            yield self._wrong(what, *turns[:1])
            return
        if turns and message.end != turns[0][-1]:
            told = f"its client was told {message.end}, its turn ended in {turns[0][-1]}"
            yield self._wrong(f"{message.mark}: {told}", turns[0])
        yield from self._views(message)
        yield from self._asked(message, bool(turns))

    def _views(self, message: Message) -> Iterator[Violation]:
        for view in filter(None, message.views):
            stored = [each for each in self._turns[view[0].turn] if each.kind != "raw"]
            said = [each for each in view if each.kind != "raw"]
            for what in (*disorder(view), difference(said, stored)):
                if what:
                    yield self._wrong(f"{message.mark}, a client's view: {what}", view)
            if stored and view[0].seq != stored[0].seq:
                yield self._wrong(f"{message.mark}: a view begins in the middle", view)

    def _asked(self, message: Message, accepted: bool) -> Iterator[Violation]:
        asked, end = self._model.asked[message.mark], message.end
        assert end is not None
        if asked > 1 or (asked and not accepted):
            yield self._wrong(f"{message.mark}: the model was asked {asked} times", [end])
        if end.kind == "turn_failed" and "('started', 'false')" in end.text and asked:
            yield self._wrong(f"{message.mark} ran, and was said not to have begun", [end])
        if end.kind != "turn_completed":
            return
        if not asked:
            yield self._wrong(f"{message.mark}: completed, and the model was never asked", [end])
        deltas = [each for each in self._turns[end.turn] if each.kind == "text_delta"]
        if end.text != message.answer or "".join(each.text for each in deltas) != message.answer:
            yield self._wrong(f"{message.mark}: its answer is not whole", [*deltas, end])

    def _observer(self) -> Iterator[Violation]:
        saw, raw = self._line.observed, self._line.raw
        stored = [each for each in self._journal if raw or each.kind != "raw"]
        saw = [each for each in saw if raw or each.kind != "raw"]
        for what in (*disorder(saw), difference(saw, stored)):
            if what:
                yield self._wrong(f"the observer's view: {what}")
        if stored and (not saw or saw[-1].seq != stored[-1].seq):
            yield self._wrong(f"the observer was not told of {stored[-1]}", saw[-1:])

    def _listing(self) -> Iterator[Violation]:
        listed = self._listed
        if listed is None:
            yield self._wrong("the session is not listed")
        elif listed.turn_count != len(self._turns):
            count = len(self._turns)
            yield self._wrong(f"{listed.turn_count} turns are listed, {count} were accepted")
        elif listed.state == pb.SESSION_STATE_RUNNING:
            yield self._wrong("the session is listed as running")


def goes_on(line: Line, last: Message, model: CountingModel) -> Iterator[Violation]:
    """The session's last message, when all was quiet, completed and knew what was said before."""
    if last.end is None or last.end.kind != "turn_completed":
        yield Violation(line.number, f"the session does not go on: {last.mark} {last.end}")
        return
    done = {m.mark for m in line.messages if m.end and m.end.kind == "turn_completed"}
    if forgotten := done - model.known[last.mark]:
        names = ", ".join(sorted(forgotten))
        yield Violation(line.number, f"forgotten by {last.mark}: {names}")
