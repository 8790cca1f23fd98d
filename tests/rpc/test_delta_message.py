"""The message that a stream's deltas travel in, one after another."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from warmline.v1 import chat_service_pb2 as pb
from warmline_service.rpc import _streaming
from warmline_service.rpc._streaming import DeltaMessage
from warmline_service.rpc._wire import wire_events
from warmline_service.sessions.events import Event, TextDelta

EVENTS = st.builds(
    Event,
    st.just("session"),
    st.sampled_from(["turn", "next"]),
    st.integers(1, 2),
    st.integers(1, 2**40),
    st.floats(0, 4e9),
    st.builds(TextDelta, st.text(max_size=40), st.integers(0, 3)),
    st.sampled_from(["", "call"]),
)


@pytest.fixture(params=[16, 64 * 1024])
def room(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whether the message is made again all the time, or never."""
    monkeypatch.setattr(_streaming, "_REFILL_BYTES", request.param)


@pytest.mark.usefixtures("room")
def test_a_message_that_is_filled_again_holds_nothing_of_the_last_delta() -> None:
    """Whatever went before, it is what a message of this delta alone would be."""

    @given(st.lists(EVENTS, max_size=12))
    def walk(events: list[Event]) -> None:
        deltas = DeltaMessage(pb.ChatResponse)
        for event in events:
            assert isinstance(event.body, TextDelta)
            alone = pb.ChatResponse(events=wire_events([event]))
            assert deltas.filled(event, event.body) == alone

    walk()


def test_a_message_is_made_again_before_it_has_held_much() -> None:
    """What protobuf keeps of each string is freed with the message: so it must not live forever."""
    deltas = DeltaMessage(pb.ChatResponse)
    made = set()
    for seq in range(1, 101):
        body = TextDelta("x" * 4096, 0)
        made.add(id(deltas.filled(Event("session", "turn", 1, seq, 1.0, body), body)))
    assert len(made) > 1
