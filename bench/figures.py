"""What was measured: series of values, ratios between them, and whether a goal is met."""

from __future__ import annotations

import math
import statistics
from dataclasses import dataclass, field
from typing import Any


@dataclass
class Series:
    """Values of one quantity, in `unit`; `note` says what a reader has to know of it."""

    name: str
    unit: str
    values: list[float] = field(default_factory=list)
    note: str = ""

    @property
    def median(self) -> float:
        """The value in the middle; NaN without values."""
        return statistics.median(self.values) if self.values else math.nan

    @property
    def p99(self) -> float:
        """The value that 99 of 100 do not exceed, by nearest rank; NaN without values."""
        ordered = sorted(self.values)
        return ordered[math.ceil(0.99 * len(ordered)) - 1] if ordered else math.nan


@dataclass(frozen=True)
class Goal:
    """A bound on a figure; `firm` is false for one that is only aimed at."""

    bound: float
    at_least: bool = False
    firm: bool = True

    def met(self, value: float) -> bool:
        """Whether `value` is within the bound; NaN never is."""
        return value >= self.bound if self.at_least else value <= self.bound

    def __str__(self) -> str:
        sign = "≥" if self.at_least else "≤"  # for people
        return f"{sign} {self.bound:g}" + ("" if self.firm else " (aim)")


@dataclass(frozen=True)
class Finding:
    """A figure that has a goal."""

    name: str
    value: float
    goal: Goal

    @property
    def met(self) -> bool:
        """Whether the goal is reached."""
        return self.goal.met(self.value)


@dataclass
class Report:
    """Everything that one run found, by part."""

    about: dict[str, Any] = field(default_factory=dict)
    parts: dict[str, list[Series]] = field(default_factory=dict)
    findings: list[Finding] = field(default_factory=list)
    remarks: list[str] = field(default_factory=list)

    def series(self, part: str, name: str, unit: str, note: str = "") -> Series:
        """A new series of a part."""
        made = Series(name, unit, note=note)
        self.parts.setdefault(part, []).append(made)
        return made

    def ratio(self, name: str, over: Series, under: Series, goal: Goal) -> None:
        """Note the ratio of two medians."""
        if over.values and under.values:
            self.findings.append(Finding(name, over.median / under.median, goal))

    def as_json(self) -> dict[str, Any]:
        """The run as JSON values, every sample included."""
        return {
            "about": self.about,
            "parts": {
                part: [_series_json(series) for series in all_series]
                for part, all_series in self.parts.items()
            },
            "findings": [
                {
                    "name": each.name,
                    "value": each.value,
                    "goal": str(each.goal),
                    "met": each.met,
                }
                for each in self.findings
            ],
            "remarks": self.remarks,
        }


def _series_json(series: Series) -> dict[str, Any]:
    return {
        "name": series.name,
        "unit": series.unit,
        "median": series.median if series.values else None,
        "p99": series.p99 if series.values else None,
        "n": len(series.values),
        "note": series.note,
        "values": [round(value, 4) for value in series.values],
    }
