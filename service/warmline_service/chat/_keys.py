"""Which kinds of process are kept as spares, and which of them may serve a session."""

from __future__ import annotations

from warmline_service.worker import Capabilities, SpawnKey, SystemPrompt


def spare_keys(can: Capabilities) -> tuple[SpawnKey, ...]:
    """The kinds of spare that are worth keeping with this CLI."""
    fresh = SpawnKey(warmed=can.warming)
    return (SpawnKey(primed=True), fresh) if can.priming else (fresh,)


def acceptable_keys(
    can: Capabilities, model: str | None, prompt: SystemPrompt | None
) -> tuple[SpawnKey, ...]:
    """The kinds of process that will do, best first; the last is what a cold start makes.

    A primed one takes no system prompt. What this CLI cannot bind late is in the key itself, which
    no spare has.
    """
    cold = SpawnKey(
        model=None if can.late_model else model,
        system_prompt=None if can.late_system_prompt else prompt,
    )
    if cold != SpawnKey():
        return (cold,)
    spares = [key for key in spare_keys(can) if prompt is None or not key.primed]
    return (*(key for key in spares if key != cold), cold)
