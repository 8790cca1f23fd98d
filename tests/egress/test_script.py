"""The script language, without a server."""

import contextlib
import re
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from warmline_service.egress.loopback import ScriptError, parse
from warmline_service.egress.loopback._script import _DIRECTIVES, ECHOES, STOPS
from warmline_service.egress.loopback._steps import Call, Cut, Fail, Pace, Pause, Words, Write

_TRICKY = ["::say hi", "::text 3", "::tool T {", "::error 9", "::pace 1ms", "::stop x", "::tool T"]
_DIRECTIVE = st.sampled_from(["tool T", "text", "delay", "hang"])
_LINES = st.lists(
    st.text() | st.sampled_from(_TRICKY) | st.builds("::{} {}".format, _DIRECTIVE, st.text())
)


@given(_LINES)
@example(["::tool T " + "[" * 100_000])
@example(["::tool T {" + '"a":{' * 100_000])
@example(["::text 99999999999999999999"])
@example(["::text \u0663"])
@example(['::tool T {"a":"\ud800"}'])
@example(["::say " + " " * 50_000 + "x"])
def test_any_text_is_a_script_or_none_or_a_named_mistake(lines: list[str]) -> None:
    """Nothing but ScriptError comes out of the parser, whatever a caller writes."""
    with contextlib.suppress(ScriptError):
        replies = parse("\n".join(lines))
        assert replies is None or all(replies)


@pytest.mark.parametrize("text", ["", "hello", "std::vector", "::std::vector", "a\n::Foo"])
def test_a_text_without_a_directive_is_no_script(text: str) -> None:
    """Colons alone do not make a script."""
    assert parse(text) is None


def test_steps_keep_their_order_and_units() -> None:
    """Times come out in seconds; lines without a directive mean nothing."""
    replies = parse("Please:\n::delay 200ms\n::pace 1.5s\n  ::text 7\n::cut")
    assert replies == ((Pause(0.2), Pace(1.5), Write("text", Words(7)), Cut()),)


def test_a_reply_ends_after_its_tool_calls() -> None:
    """Calls that follow each other are made together; what comes later is the next request's."""
    replies = parse('::say a\n::tool A {"x": 1}\n::tool B\n::say b')
    assert replies is not None
    assert [len(reply) for reply in replies] == [3, 1]
    assert replies[0][1:] == (Call("A", '{"x": 1}'), Call("B", "{}"))


def test_lines_may_end_as_on_windows() -> None:
    """A carriage return is no part of a step."""
    assert parse("::say a\r\n::cut\r\n") == ((Write("text", Words(1, "a")), Cut()),)


def test_an_error_can_be_counted_and_name_a_time() -> None:
    """Both options may be given, in this order."""
    assert parse("::error 529 times 2 retry-after 3") == ((Fail(529, 2, 3),),)


@pytest.mark.parametrize(
    "line",
    [
        "::text 0",
        "::text 1000001",
        "::text many",
        "::delay 2",
        "::delay 3601s",
        "::tool",
        "::tool Bash ls",
        "::tool Bash [1]",
        "::error 200",
        "::error 429 retry-after",
        "::stop whenever",
        "::echo secrets",
        "::hang now",
    ],
)
def test_a_wrong_directive_names_its_line(line: str) -> None:
    """The mistake says where it is."""
    with pytest.raises(ScriptError, match="line 2: ::"):
        parse(f"::say hi\n{line}")


def test_an_unknown_directive_in_a_script_is_named() -> None:
    """A typing mistake is told, not passed over."""
    with pytest.raises(ScriptError, match="line 2: ::txt does not exist"):
        parse("::say hi\n::txt 3")


def test_the_documentation_names_every_directive() -> None:
    """What docs/loopback.md lists is what there is."""
    text = (Path(__file__).parents[2] / "docs" / "loopback.md").read_text("utf-8")
    listed = re.findall(r"^\| `::([a-z]+)", text, re.MULTILINE)
    assert set(listed) == set(_DIRECTIVES)
    assert all(f"`{word}`" in text for word in ECHOES + STOPS)


def test_a_script_has_a_bounded_number_of_steps() -> None:
    """A message cannot make the model work without end."""
    with pytest.raises(ScriptError, match="at most 1000"):
        parse("::say hi\n" * 1001)
