"""docs/features.md, taken apart: its examples with what stands under them, and its table."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

PAGE = (Path(__file__).resolve().parents[1] / "docs" / "features.md").read_text()
_BLOCK = re.compile(
    r"^```(json|python)\n(.*?)^```\n\n(Told|Refused|Prints): (.*?)\n(?=\n|\Z)",
    re.MULTILINE | re.DOTALL,
)
_BREAKS = ", and then the stream breaks"


@dataclass(frozen=True)
class Example:
    """A block of code and what it is answered with."""

    code: str
    answer: Literal["Told", "Refused", "Prints"]
    # What stands in backticks in the answer, and in what the model was sent.
    words: tuple[str, ...]
    sent: tuple[str, ...]
    # The caller goes away when the last of it has been told.
    breaks: bool

    @property
    def told(self) -> list[tuple[str, list[str]]]:
        """Kinds of event in their order, each with words that it holds."""
        parts = [each.partition(" ") for each in self.words]
        return [(kind, words.split(", ") if words else []) for kind, _, words in parts]


def sections() -> dict[str, list[Example]]:
    """The examples below each heading that has some."""
    parts = re.split(r"^## (.*)\n", PAGE, flags=re.MULTILINE)[1:]
    found = {title: _examples(text) for title, text in zip(parts[::2], parts[1::2], strict=True)}
    return {title: examples for title, examples in found.items() if examples}


def _examples(text: str) -> list[Example]:
    found = []
    for _, code, answer, line in _BLOCK.findall(text):
        words, _, sent = line.partition(". Sent:")
        breaks = words.endswith(_BREAKS)
        found.append(Example(code, answer, _quoted(words), _quoted(sent), breaks))
    assert len(found) == text.count("```") // 2, f"a block without an answer in: {text[:200]}"
    return found


def _quoted(text: str) -> tuple[str, ...]:
    return tuple(re.findall("`([^`]+)`", text))


def table() -> dict[str, tuple[str, set[str]]]:
    """By each field of SessionConfig: what it starts on, and its names in `misses`."""
    rows = re.findall(r"^\| (`.*) \| (primed|warmed|cold) \| (.*)\|$", PAGE, re.MULTILINE)
    return {
        field: (start, set(_quoted(misses)))
        for fields, start, misses in rows
        for field in _quoted(fields)
    }
