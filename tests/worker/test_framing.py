"""Lines come out whole, however the bytes came in."""

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st
from warmline_service.worker._framing import LineSplitter, LineTooLong

LINES = st.lists(
    st.text(st.characters(codec="utf-8", exclude_characters="\n"), min_size=1).filter(str.strip)
)
CUTS = st.lists(st.integers(0, 4000))
MIB = 1024 * 1024


def pieces(data: bytes, cuts: list[int]) -> list[bytes]:
    """`data` cut at these places."""
    at = sorted({0, len(data), *(cut % (len(data) + 1) for cut in cuts)})
    return [data[a:b] for a, b in itertools.pairwise(at)]


@given(LINES, CUTS)
def test_any_cut_gives_the_same_lines(lines: list[str], cuts: list[int]) -> None:
    """Where a read ends, even inside a character, has no influence."""
    data = "".join(f"{line}\n" for line in lines).encode()
    splitter = LineSplitter(MIB)
    found = [line for piece in pieces(data, cuts) for line in splitter.feed(piece)]
    assert [line.decode() for line in found] == [line for line in lines if line.encode().strip()]
    assert splitter.held_bytes == 0


@given(st.binary(max_size=300), CUTS, st.integers(1, 50))
def test_no_line_is_over_the_bound(data: bytes, cuts: list[int], bound: int) -> None:
    """A line of the bound passes, one more byte ends it, and no more than the bound is held."""
    splitter, found, failed = LineSplitter(bound), [], False
    try:
        for piece in pieces(data, cuts):
            found += splitter.feed(piece)
            assert splitter.held_bytes <= bound
    except LineTooLong:
        failed = True
    assert failed == (max(map(len, data.split(b"\n"))) > bound)
    assert all(len(line) <= bound for line in found)


def test_a_long_line_in_small_pieces_is_joined_once() -> None:
    """20 MB in pieces of 64 KiB come out as one line and leave nothing behind."""
    splitter, piece = LineSplitter(64 * MIB), b"x" * 65536
    for _ in range(320):
        assert splitter.feed(piece) == []
    assert [len(line) for line in splitter.feed(b"\n")] == [20 * MIB]
    assert splitter.held_bytes == 0


@pytest.mark.parametrize("data", [b"\n", b" \n\t\r\n", b"\n\n\n"])
def test_blank_lines_are_dropped(data: bytes) -> None:
    """A blank line means nothing."""
    assert LineSplitter(10).feed(data) == []
