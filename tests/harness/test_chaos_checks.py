"""The fault harness finds what it is there to find."""

from collections.abc import Callable

import pytest
from chaos.checks import SessionCheck, goes_on
from chaos.model import CountingModel
from chaos.plan import kinds_for, schedule
from chaos.seen import Seen, difference
from chaos.talker import Line, Message
from warmline.v1 import session_service_pb2 as pb

_KEY = "k"
_JOURNAL = (
    Seen(1, 1, "t", "turn_queued", "said", _KEY, b"q"),
    Seen(2, 1, "t", "turn_started", "", "", b"s"),
    Seen(3, 1, "t", "text_delta", "an", "/0"),
    Seen(4, 1, "t", "text_delta", "swer", "/0"),
    Seen(5, 1, "t", "message", "", "", b"m"),
    Seen(6, 1, "t", "turn_completed", "answer", "", b"c"),
)


class Case:
    """A session with one turn in which all is well, to be spoilt."""

    def __init__(self) -> None:
        self.journal = list(_JOURNAL)
        self.message = Message("mark-0-0-end", "said", "answer", _KEY)
        self.message.views = [list(_JOURNAL)]
        self.message.end = _JOURNAL[-1]
        self.line = Line(0, raw=False, pause=0.0, id="s")
        self.line.messages = [self.message]
        self.line.observed = list(_JOURNAL)
        self.model = CountingModel()
        self.model.asked[self.message.mark] = 1
        self.model.known[self.message.mark] = {self.message.mark}
        self.listed = pb.Session(id="s", turn_count=1)

    def found(self) -> list[str]:
        check = SessionCheck(self.line, self.journal, self.model, self.listed)
        wrong = [*check.violations(), *goes_on(self.line, self.message, self.model)]
        return [each.what for each in wrong]


def test_nothing_is_found_where_all_is_well() -> None:
    """Also where a replay has joined what was told in pieces."""
    case = Case()
    assert case.found() == []
    case.journal[2:4] = [case.journal[3]._replace(text="answer")]
    assert case.found() == []


def _drop_end(case: Case) -> None:
    del case.journal[-1]


def _end_twice(case: Case) -> None:
    case.journal.append(case.journal[-1]._replace(seq=7))


def _skip_a_seq(case: Case) -> None:
    case.journal[-1] = case.journal[-1]._replace(seq=7)


def _fall_back(case: Case) -> None:
    case.journal[-1] = case.journal[-1]._replace(epoch=0)


def _run_twice(case: Case) -> None:
    case.model.asked[case.message.mark] = 2


def _run_never(case: Case) -> None:
    case.model.asked[case.message.mark] = 0


def _never_end(case: Case) -> None:
    case.message.end = None


def _tell_another_end(case: Case) -> None:
    case.message.end = Seen(0, 1, "t", "turn_failed", "DRAINING: {}", _KEY)


def _lose_a_delta(case: Case) -> None:
    del case.message.views[0][2]


def _repeat_a_delta(case: Case) -> None:
    case.line.observed.insert(3, case.line.observed[2])


def _observe_nothing(case: Case) -> None:
    case.line.observed.clear()


def _forget(case: Case) -> None:
    case.model.known[case.message.mark] = set()


def _list_one_more(case: Case) -> None:
    case.listed.turn_count = 2


def _complain(case: Case) -> None:
    case.line.complain("a client was told nonsense")


@pytest.mark.parametrize(
    "spoil",
    [
        _drop_end,
        _end_twice,
        _skip_a_seq,
        _fall_back,
        _run_twice,
        _run_never,
        _never_end,
        _tell_another_end,
        _lose_a_delta,
        _repeat_a_delta,
        _observe_nothing,
        _forget,
        _list_one_more,
        _complain,
    ],
)
def test_what_is_not_kept_is_found(spoil: Callable[[Case], None]) -> None:
    """Each promise that is broken by itself is reported."""
    case = Case()
    spoil(case)
    assert case.found()


def test_a_view_may_end_within_a_joined_delta() -> None:
    """Its text must be the beginning of the other's."""
    whole = [Seen(2, 1, "t", "text_delta", "answer", "/0")]
    assert difference([Seen(1, 1, "t", "text_delta", "ans", "/0")], whole) == ""
    assert difference([Seen(1, 1, "t", "text_delta", "anx", "/0")], whole)


def test_a_seed_gives_the_same_faults_again() -> None:
    """And each kind at least once."""
    kinds = kinds_for("postgres", disk=False)
    first = schedule(5, 100, kinds)
    assert first == schedule(5, 100, kinds)
    assert first != schedule(6, 100, kinds)
    assert {each.kind for each in first} == set(kinds)
