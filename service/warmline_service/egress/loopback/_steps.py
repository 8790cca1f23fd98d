"""What an answer of the loopback model is made of: steps, done in order."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

_SENTENCE = (
    "warm lines answer at once, cold ones take their time; a spare waits for nobody in particular."
)
_FILLER = tuple(f"{word} " for word in _SENTENCE.split())
# Characters of a token of given text.
_PIECE = 4


@dataclass(frozen=True, slots=True)
class Words:
    """`count` tokens of text: what is given, or else filler."""

    count: int
    given: str | None = None

    def pieces(self) -> Iterator[str]:
        """The text, a token at a time."""
        if self.given is None:
            return itertools.islice(itertools.cycle(_FILLER), self.count)
        text = self.given
        return (text[i : i + _PIECE] for i in range(0, self.count * _PIECE, _PIECE))

    @property
    def text(self) -> str:
        """The text in one piece."""
        if self.given is not None:
            return self.given[: self.count * _PIECE]
        rounds, rest = divmod(self.count, len(_FILLER))
        return "".join(_FILLER) * rounds + "".join(_FILLER[:rest])

    def upto(self, count: int) -> Words:
        """No more than so many tokens of it."""
        return Words(min(self.count, count), self.given)


def spoken(text: str) -> Words:
    """The tokens of a text."""
    return Words(-(-len(text) // _PIECE), text)


@dataclass(frozen=True, slots=True)
class Write:
    """Write a block of text or of thinking."""

    kind: Literal["text", "thinking"]
    words: Words


@dataclass(frozen=True, slots=True)
class Call:
    """Call a tool; `input` is a JSON object."""

    name: str
    input: str


@dataclass(frozen=True, slots=True)
class Echo:
    """Write what the model was sent."""

    what: str


@dataclass(frozen=True, slots=True)
class Pause:
    """Wait so many seconds."""

    seconds: float


@dataclass(frozen=True, slots=True)
class Pace:
    """From here on take so many seconds for each token."""

    seconds: float


@dataclass(frozen=True, slots=True)
class Stop:
    """End with this stop reason."""

    reason: str


@dataclass(frozen=True, slots=True)
class Fail:
    """Answer with an error; with `times` only so often, then the steps after it are done."""

    status: int
    times: int | None = None
    retry_after: int | None = None


@dataclass(frozen=True, slots=True)
class Hang:
    """Say nothing more and keep the connection."""


@dataclass(frozen=True, slots=True)
class Cut:
    """Drop the connection."""


Step = Write | Call | Echo | Pause | Pace | Stop | Fail | Hang | Cut
Reply = tuple[Step, ...]
