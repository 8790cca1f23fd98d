"""Metering reads streams that arrive cut anywhere."""

import itertools
import json

from egress.upstream import USAGE, delta, end, frame, start
from hypothesis import example, given
from hypothesis import strategies as st
from warmline_service.egress import Tokens, UpstreamError
from warmline_service.egress._account import Account
from warmline_service.egress._sse import UsageScanner

TRICK = delta('event: message_delta\n\ndata: {"type":"message_delta"} "error" message_start"')
STREAM = start() + delta("a") + TRICK + frame("ping") + delta("\u2028" * 50) + end(42)
USED = {"m-2": Tokens(11, 42, 7, 5)}


def scanned(*pieces: bytes) -> Account:
    """An account after a stream of these pieces."""
    account = Account("s1")
    scanner = UsageScanner(account, account.meter.begin())
    for piece in pieces:
        scanner.feed(piece)
    scanner.finish()
    return account


@given(cuts=st.sets(st.integers(0, len(STREAM))), crlf=st.booleans())
def test_any_split_gives_the_same(cuts: set[int], crlf: bool) -> None:
    """Where a stream is cut into pieces, and how its lines end, changes nothing."""
    stream = STREAM.replace(b"\n", b"\r\n") if crlf else STREAM
    marks = [0, *sorted(cuts), len(stream)]
    pieces = [stream[a:b] for a, b in itertools.pairwise(marks)]
    assert scanned(*pieces).meter.snapshot() == USED


@given(st.lists(st.binary()))
@example([b'"content_block_delta"'])
def test_no_bytes_raise(pieces: list[bytes]) -> None:
    """An upstream that talks nonsense is metered as nothing."""
    assert scanned(*pieces, b'\n\nevent: message_start"\ndata: {{\n\n').meter.snapshot() == {}


def test_usage_is_known_before_the_end() -> None:
    """A stream that breaks off has cost what it reported."""
    assert scanned(start(), delta("a")).meter.snapshot() == {"m-2": Tokens(11, 1, 7, 5)}


def test_a_last_frame_without_its_blank_line_counts() -> None:
    """Some endpoints do not end their last line."""
    last = frame("message_delta", usage={"output_tokens": 42}).rstrip()
    assert scanned(start(), last).meter.snapshot() == USED


def test_a_delta_may_correct_every_count() -> None:
    """What message_delta says is the sum; what it leaves out stays."""
    last = frame("message_delta", usage=USAGE | {"input_tokens": 20, "output_tokens": 3})
    assert scanned(start(), last).meter.snapshot() == {"m-2": Tokens(20, 3, 7, 5)}


def test_a_huge_frame_is_not_kept() -> None:
    """A frame beyond the bound is skipped to its end, and the next one counts."""
    account = Account("s1")
    scanner = UsageScanner(account, account.meter.begin())
    scanner.feed(start() + b"data: ")
    for _ in range(100):
        scanner.feed(b"x" * 65536)
    assert len(scanner._tail) < 10
    scanner.feed(b"\n\n" + end(42))
    assert account.meter.snapshot() == USED


def test_a_text_that_names_an_error_is_none() -> None:
    """Only an event of that type is one."""
    assert scanned(delta(json.dumps({"type": "error", "error": {"type": "x"}}))).fault is None
    event = frame("error", error={"type": "rate_limit_error"})
    assert scanned(event).fault == UpstreamError(429, "rate_limit_error")
