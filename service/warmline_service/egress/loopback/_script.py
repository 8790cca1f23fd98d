"""The script language that steers the loopback model from a user's message (docs/loopback.md)."""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable, Iterable

import msgspec

from warmline_service.egress.loopback._steps import (
    Call,
    Cut,
    Echo,
    Fail,
    Hang,
    Pace,
    Pause,
    Reply,
    Step,
    Stop,
    Words,
    Write,
    spoken,
)

MAX_STEPS = 1000
MAX_TOKENS = 1_000_000
MAX_SECONDS = 3600.0
ECHOES = ("system", "messages", "model", "tools", "request")
STOPS = ("end_turn", "max_tokens", "refusal", "stop_sequence")

_LINE = re.compile(r"^[ \t]*::([a-z]+)(?:[ \t]+(.*))?\r?$", re.MULTILINE)
_DURATION = re.compile(r"([0-9]{1,7}(?:\.[0-9]{1,3})?)(ms|s)")
_TOOL = re.compile(r"([A-Za-z0-9_.:-]{1,128})(?:[ \t]+(.+))?")
_FAIL = re.compile(
    r"([0-9]{3})(?:[ \t]+times[ \t]+([0-9]{1,3}))?(?:[ \t]+retry-after[ \t]+([0-9]{1,4}))?"
)


class ScriptError(ValueError):
    """A line of a script is not understood; the text says which and what was expected."""


def parse(text: str) -> tuple[Reply, ...] | None:
    """The replies that a message asks for, one for each request; None where it holds no script.

    A message is a script when one of its lines begins with a directive; its other lines mean
    nothing. Raises ScriptError for a wrong line, and nothing else for any text.
    """
    found = list(itertools.islice(_LINE.finditer(text), MAX_STEPS + 1))
    if not any(match[1] in _DIRECTIVES for match in found):
        return None
    if len(found) > MAX_STEPS:
        raise ScriptError(f"a script has at most {MAX_STEPS} steps")
    return tuple(_replies(_step(match) for match in found))


def _step(match: re.Match[str]) -> Step:
    name, rest = match[1], (match[2] or "").strip()
    try:
        return _DIRECTIVES.get(name, _unknown)(rest)
    except ScriptError as error:
        number = match.string.count("\n", 0, match.start(1)) + 1
        raise ScriptError(f"line {number}: ::{name[:40]} {error}") from None


def _replies(steps: Iterable[Step]) -> list[Reply]:
    """Cut the steps where the CLI has to answer: after each run of tool calls."""
    replies: list[list[Step]] = [[]]
    for step in steps:
        last = replies[-1]
        if last and isinstance(last[-1], Call) and not isinstance(step, Call):
            replies.append([])
        replies[-1].append(step)
    return [tuple(reply) for reply in replies]


def _unknown(_: str) -> Step:
    raise ScriptError(f"does not exist; there are ::{', ::'.join(sorted(_DIRECTIVES))}")


def _number(rest: str, most: int) -> int:
    if not re.fullmatch(r"[0-9]{1,9}", rest) or not 1 <= int(rest) <= most:
        raise ScriptError(f"expects a number from 1 to {most}")
    return int(rest)


def _seconds(rest: str) -> float:
    match = _DURATION.fullmatch(rest)
    seconds = float(match[1]) / (1000 if match[2] == "ms" else 1) if match else MAX_SECONDS + 1
    if seconds > MAX_SECONDS:
        raise ScriptError("expects a time such as 20ms or 1.5s, at most 3600s")
    return seconds


def _one_of(rest: str, words: tuple[str, ...]) -> str:
    if rest not in words:
        raise ScriptError(f"expects one of {', '.join(words)}")
    return rest


def _nothing(rest: str, step: Step) -> Step:
    if rest:
        raise ScriptError("expects nothing after it")
    return step


def _tool(rest: str) -> Call:
    match = _TOOL.fullmatch(rest)
    if match is None:
        raise ScriptError('expects a name and a JSON object, such as Bash {"command": "ls"}')
    arguments = match[2] or "{}"
    try:
        msgspec.json.decode(arguments, type=dict[str, object])
    except (msgspec.MsgspecError, ValueError, RecursionError):
        raise ScriptError("expects a JSON object after the tool's name") from None
    return Call(match[1], arguments)


def _fail(rest: str) -> Fail:
    match = _FAIL.fullmatch(rest)
    if match is None or not 400 <= int(match[1]) <= 599:
        raise ScriptError("expects 400 to 599, then perhaps: times N, retry-after SECONDS")
    return Fail(int(match[1]), *(int(part) if part else None for part in match.group(2, 3)))


_DIRECTIVES: dict[str, Callable[[str], Step]] = {
    "cut": lambda rest: _nothing(rest, Cut()),
    "delay": lambda rest: Pause(_seconds(rest)),
    "echo": lambda rest: Echo(_one_of(rest, ECHOES)),
    "error": _fail,
    "hang": lambda rest: _nothing(rest, Hang()),
    "pace": lambda rest: Pace(_seconds(rest)),
    "say": lambda rest: Write("text", spoken(rest)),
    "stop": lambda rest: Stop(_one_of(rest, STOPS)),
    "text": lambda rest: Write("text", Words(_number(rest, MAX_TOKENS))),
    "think": lambda rest: Write("thinking", Words(_number(rest, MAX_TOKENS))),
    "tool": _tool,
}
