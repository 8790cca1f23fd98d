"""What is stored where, and when."""

import asyncio
from collections import deque

import pytest
from warmline_service.errors import Reason, WarmlineError
from warmline_service.sessions import Session, SessionConfig
from warmline_service.sessions._entries import Entry, divide, take
from warmline_service.sessions.events import (
    Body,
    Event,
    Latency,
    Start,
    StopReason,
    TextDelta,
    ThinkingDelta,
    TurnCompleted,
    TurnFailed,
    TurnStarted,
    Usage,
    encode_body,
    kind_of,
)
from warmline_service.store import follows

TEXT = TextDelta("a", 0)
OF_TURNS = (
    TurnStarted(Latency(Start.HOT)),
    TurnCompleted(StopReason.END_TURN, "", Usage(), None),
    TurnFailed(WarmlineError(Reason.INTERNAL, "no")),
)


def of(name: str) -> Session:
    return Session("acme", name, SessionConfig(), 1, 1, 0, 0, 0, "")


A, B, C = of("a"), of("b"), of("c")


def entry(session: Session, body: Body = TEXT) -> Entry:
    event = Event(session.id, "t", 1, session.next_seq(), 1.0, body)
    return Entry(session, encode_body(body), None, event)


def held(session_id: str, epoch: int) -> bool:
    return epoch == 1


def test_content_that_comes_piece_by_piece_goes_by_the_log() -> None:
    """In its order."""
    group = [entry(A), entry(B), entry(A, ThinkingDelta("x", 0)), entry(B)]
    assert divide(group, held, waits=False) == (group, [])


@pytest.mark.parametrize("body", OF_TURNS, ids=kind_of)
def test_what_says_something_of_a_turn_goes_to_the_database(body: Body) -> None:
    """With all of its session; the others need not wait for it."""
    group = [entry(A), entry(B), entry(A, body), entry(A), entry(B)]
    logged, stored = divide(group, held, waits=False)
    assert [each.session for each in logged] == [B, B]
    assert stored == [group[0], group[2], group[3]]


@pytest.mark.parametrize("body", [*OF_TURNS, TEXT], ids=kind_of)
def test_the_store_follows_just_what_does_not_go_by_the_log(body: Body) -> None:
    """Or a turn's row would not be in step with its events."""
    logged, _ = divide([entry(A, body)], held, waits=False)
    assert follows(kind_of(body)) == (not logged)


def test_a_piece_of_a_transcript_and_large_content_go_to_the_database() -> None:
    """The first belongs to the turn's end, the other is not to be written twice."""
    part = Entry(A, b"lines", None, part=1, turn_id="t")
    large = entry(B, TextDelta("x" * 20_000, 0))
    assert divide([part, large, entry(C)], held, waits=False)[1] == [part, large]


def test_a_flood_goes_to_the_database_unless_it_had_to_wait_for_it() -> None:
    """Many events of a session fill the pages that they change."""
    group = [entry(A) for _ in range(5)]
    assert divide(group, held, waits=False) == ([], group)
    assert divide(group, held, waits=True) == (group, [])


def test_whose_lease_is_not_known_is_asked_of_the_database() -> None:
    """It may have been taken over."""
    lost = Session("acme", "lost", SessionConfig(), 2, 1, 0, 0, 0, "")
    lost.token = 2
    group = [entry(lost), entry(A)]
    assert divide(group, held, waits=False) == ([group[1]], [group[0]])


async def test_a_session_that_is_being_stored_is_passed_over() -> None:
    """What comes of it meanwhile stays where it is, in its order; the others go on."""
    pending = deque([entry(A), entry(B), entry(A), entry(C)])
    every = list(pending)
    group, left, more = take(pending, 10, {"a"})
    assert group == [every[1], every[3]]
    assert list(left) == [every[0], every[2]]
    assert not more  # Its end is what says that there is more.
    group, left, _ = take(left, 10)
    assert group == [every[0], every[2]]
    assert not left


async def test_large_content_that_is_still_being_put_away_holds_its_session() -> None:
    """And that alone."""
    put_away = asyncio.create_task(asyncio.sleep(0))
    pending = deque([Entry(A, b"", put_away, entry(A).event), entry(A), entry(B)])
    group, left, more = take(pending, 10)
    assert [each.session for each in group] == [B]
    assert len(left) == 2
    assert not more
    await put_away
    group, left, _ = take(left, 10)
    assert len(group) == 2
