"""What a slot uses of each model, kept exact while answers still stream."""

from __future__ import annotations

from dataclasses import dataclass, replace


@dataclass(frozen=True, slots=True)
class Tokens:
    """Tokens by what they are charged as; a turn's are those after it less those before it."""

    input: int = 0
    output: int = 0
    cache_read: int = 0
    cache_creation: int = 0

    def __add__(self, other: Tokens) -> Tokens:
        return Tokens(
            self.input + other.input,
            self.output + other.output,
            self.cache_read + other.cache_read,
            self.cache_creation + other.cache_creation,
        )

    def __sub__(self, other: Tokens) -> Tokens:
        return Tokens(
            self.input - other.input,
            self.output - other.output,
            self.cache_read - other.cache_read,
            self.cache_creation - other.cache_creation,
        )


class Meter:
    """The sum over a slot's requests, by model."""

    def __init__(self) -> None:
        self.requests = 0
        self._by_model: dict[str, Tokens] = {}

    def snapshot(self) -> dict[str, Tokens]:
        """What has been used so far, by model id."""
        return dict(self._by_model)

    def begin(self) -> Reading:
        """Count one more request; what it uses goes through the reading."""
        self.requests += 1
        return Reading(self)

    def _add(self, model: str, tokens: Tokens) -> None:
        self._by_model[model] = self._by_model.get(model, Tokens()) + tokens


class Reading:
    """One request's part in a meter: a report replaces the one before, so a cut answer counts."""

    def __init__(self, meter: Meter) -> None:
        self._meter = meter
        self._model = ""
        self._begun = False
        self.tokens = Tokens()

    def begin(self, model: str, tokens: Tokens) -> None:
        """The answer has begun: who gives it, and what has been used until now."""
        self._model, self._begun = model, True
        self.report(tokens)

    def wrote(self, least: int) -> None:
        """The answer has so many tokens at the least, if it is one; how many it has is said at its end."""
        if self._begun and least > self.tokens.output:
            self.report(replace(self.tokens, output=least))

    def report(self, tokens: Tokens) -> None:
        """What the request has used in all until now."""
        self._meter._add(self._model, tokens - self.tokens)
        self.tokens = tokens
