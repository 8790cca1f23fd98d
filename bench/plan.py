"""How much is measured, and where files go meanwhile."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Plan:
    """One run. `rounds` is how often the parts that compare go round; `home` is theirs alone."""

    home: Path
    binary: Path
    rounds: int
    quick: bool

    def pick(self, full: int, quick: int) -> int:
        """The one of two amounts that this run is for."""
        return quick if self.quick else full
