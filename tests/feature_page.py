"""docs/features.md, taken apart: its examples with what stands under them, and its table."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

PAGE = (Path(__file__).resolve().parents[1] / "docs" / "features.md").read_text()
_BLOCK = re.compile(
    r"^```(json|python)\n(.*?)^```\n\n(Told|Refused|Prints): (.*?)\n(?=\n|\Z)", re.M | re.S
)
_BREAKS = ", and then the stream breaks"


@dataclass(frozen=True)
class Example:
    """A block of code and what it is answered with."""

    code: str
    answer: Literal["Told", "Refused", "Prints"]
    # What stands in backticks in the answer.
    words: tuple[str, ...]
    # The caller goes away when the last of it has been told.
    breaks: bool

    @property
    def told(self) -> list[tuple[str, list[str]]]:
        """Kinds of event in their order, each with words that it holds."""
        parts = [each.partition(" ") for each in self.words]
        return [(kind, words.split(", ") if words else []) for kind, _, words in parts]


def sections() -> dict[str, list[Example]]:
    """The examples below each heading that has some."""
    parts = re.split(r"^## (.*)\n", PAGE, flags=re.M)[1:]
    found = {title: _examples(text) for title, text in zip(parts[::2], parts[1::2], strict=True)}
    return {title: examples for title, examples in found.items() if examples}


def _examples(text: str) -> list[Example]:
    found = [
        Example(code, answer, tuple(re.findall("`([^`]+)`", line)), line.endswith(_BREAKS))
        for _, code, answer, line in _BLOCK.findall(text)
    ]
    assert len(found) == text.count("```") // 2, f"a block without an answer in: {text[:200]}"
    return found


def table() -> dict[str, tuple[str, set[str]]]:
    """By each field of SessionConfig: what it starts on, and its names in `misses`."""
    rows = re.findall(r"^\| (`.*) \| (primed|warmed|cold) \| (.*)\|$", PAGE, re.M)
    return {
        field: (start, set(re.findall("`([^`]+)`", misses)))
        for fields, start, misses in rows
        for field in re.findall("`([^`]+)`", fields)
    }
