"""What tokens cost, in millionths of a dollar."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Protocol

from warmline_service.config import ModelPrice


class Tokens(Protocol):
    """Tokens by what they are charged as."""

    @property
    def input(self) -> int:
        """Read, and not from a cache."""
        ...

    @property
    def output(self) -> int:
        """Written."""
        ...

    @property
    def cache_read(self) -> int:
        """Read from the prompt cache."""
        ...

    @property
    def cache_creation(self) -> int:
        """Written to the prompt cache."""
        ...


class Prices:
    """Costs by model id; a model that has no price is charged as the dearest that has one."""

    def __init__(self, prices: Mapping[str, ModelPrice]) -> None:
        self._prices = dict(prices)
        self._dearest = max(prices.values(), key=lambda price: price.output, default=ModelPrice())

    def cost(self, model: str, used: Tokens) -> int:
        """Millionths of a dollar, rounded up."""
        price = self._prices.get(model, self._dearest)
        # A price is in dollars for a million tokens, so in millionths for one.
        return math.ceil(
            used.input * price.input
            + used.output * price.output
            + used.cache_read * price.cache_read
            + used.cache_creation * price.cache_creation
        )


def counted(used: Tokens) -> int:
    """The tokens that a bound on tokens counts: what is read from the cache is nearly for nothing."""
    return used.input + used.output + used.cache_creation
