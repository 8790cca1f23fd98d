"""Which kinds of process are kept as spares, and which of them may serve a session."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from warmline_service.worker import Capabilities, SpawnKey, SystemPrompt


def spare_keys(can: Capabilities) -> tuple[SpawnKey, ...]:
    """The kinds of spare that are worth keeping with this CLI."""
    fresh = SpawnKey(warmed=can.warming)
    return (SpawnKey(primed=True), fresh) if can.priming else (fresh,)


def acceptable_keys(
    can: Capabilities, model: str | None, prompt: SystemPrompt | None, workspace: Path | None
) -> tuple[SpawnKey, ...]:
    """The kinds of process that will do, best first; the last is what a cold start makes.

    A primed one takes neither a system prompt nor a workspace. What this CLI cannot bind late is in
    the key itself, which no spare has.
    """
    bare = SpawnKey(
        model=None if can.late_model else model,
        system_prompt=None if can.late_system_prompt else prompt,
    )
    # It can start where it is to work.
    cold = replace(bare, workspace=workspace)
    if bare != SpawnKey() or (workspace is not None and not can.late_workspace):
        return (cold,)
    plain = prompt is None and workspace is None
    spares = [key for key in spare_keys(can) if plain or not key.primed]
    return (*(key for key in spares if key != cold), cold)
