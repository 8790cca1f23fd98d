"""What a run has to say: a table, and each violation with what led to it."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Sequence

from chaos.checks import Violation
from chaos.world import World

_EVENTS_SHOWN = 60
_FAULTS_SHOWN = 200


def show(world: World, violations: Sequence[Violation]) -> None:
    """Print it."""
    print("\n".join(_lines(world, violations)))


def _lines(world: World, violations: Sequence[Violation]) -> Iterator[str]:
    for violation in violations:
        yield f"VIOLATION, session {violation.session}: {violation.what}"
        yield from (f"    {event}" for event in violation.events[-_EVENTS_SHOWN:])
    if violations:
        yield f"seed {world.options.seed}; the faults, latest last:"
        yield from (f"    {told}" for told in world.tally.told[-_FAULTS_SHOWN:])
        yield f"the same again: {world.options.command}"
    yield from _table("fault", world.tally.done)
    if world.tally.missed:
        yield from _table("fault that found nothing to break", world.tally.missed)
    yield "\noutcome"
    yield from _rows(_outcomes(world))
    failures = sum((line.counts for line in world.lines), Counter[str]())
    yield from _table("failure that a client or an observer was told of", failures)
    if errors := _logged(world):
        yield from _table("error in the service's log", errors)
    yield f"seed {world.options.seed}, {world.options.store}: {len(violations)} violations"


def _table(heading: str, counts: Counter[str]) -> Iterator[str]:
    yield ""
    yield f"{sum(counts.values()):>7}  {heading}"
    yield from _rows(counts)


def _rows(counts: Counter[str]) -> Iterator[str]:
    for name, count in sorted(counts.items()):
        yield f"{count:>7}    {name}"


def _outcomes(world: World) -> Counter[str]:
    out: Counter[str] = Counter()
    for line in world.lines:
        for message in line.messages:
            end = message.end
            name = "no end" if end is None else end.kind
            if end is not None and end.kind == "turn_failed":
                name += f" {end.text.partition(':')[0]}"
            out[f"message: {name}"] += 1
            out["view of a turn"] += len(message.views)
        out["event observed"] += len(line.observed)
    out["life of the service"] = world.service.lives
    out["request to the model"] = sum(world.model.asked.values())
    return out


def _logged(world: World) -> Counter[str]:
    """Errors by name, which are no violations by themselves."""
    out: Counter[str] = Counter()
    for line in world.service.log.read_text(encoding="utf-8", errors="replace").splitlines():
        try:
            entry = json.loads(line)
        except ValueError:
            continue  # What it says to people.
        if entry.get("level") in ("error", "critical"):
            out[str(entry.get("event"))] += 1
    return out
