"""Which kinds of process are kept as spares, and which of them may serve a session."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from warmline_service.config import Level
from warmline_service.sessions import SessionConfig
from warmline_service.worker import Capabilities, SpawnKey

# What fits the bare profile, and every session without anything that is fixed at a start.
_BARE = SpawnKey(tools=(), bare=True)
_KINDS = (SpawnKey(), _BARE)


def spare_keys(can: Capabilities, *, bare: bool) -> tuple[SpawnKey, ...]:
    """The kinds of spare that are worth keeping with this CLI, with those for bare sessions or without."""
    kinds = _KINDS if bare else _KINDS[:1]
    return tuple(key for kind in kinds for key in _prepared(can, kind))


def _prepared(can: Capabilities, kind: SpawnKey) -> tuple[SpawnKey, ...]:
    fresh = replace(kind, warmed=can.warming)
    return (replace(kind, primed=True), fresh) if can.priming else (fresh,)


def acceptable_keys(
    can: Capabilities,
    config: SessionConfig,
    model: str | None,
    workspace: Path | None,
    directories: tuple[Path, ...] = (),
    sandbox: Level | None = None,
) -> tuple[SpawnKey, ...]:
    """The kinds of process that will do, best first; the last is what a cold start makes.

    A primed one takes nothing that has to be said before the first turn. What cannot be bound late is
    in the key itself, which no spare has but that of the bare profile, where such are kept.
    `directories` are those beside its workspace, `sandbox` is what is around it where that is not what
    is around spares.
    """
    prompt = config.system_prompt
    fixed = SpawnKey(
        model=None if can.late_model else model,
        system_prompt=None if can.late_system_prompt else prompt,
        tools=() if config.bare and config.tools is None else config.tools,
        agent=(config.agent, config.agents[config.agent]) if config.agent else None,
        fallback_models=config.fallback_models,
        betas=config.betas,
        max_turns=config.max_turns,
        max_budget_usd=config.max_budget_usd,
        bare=config.bare,
        plugins=config.plugins,
        setting_sources=config.setting_sources,
        debug=config.debug,
        sandbox=sandbox,
    )
    # It can start where it is to work.
    early = () if can.late_directories else directories
    cold = replace(fixed, workspace=workspace, directories=early)
    late = can.late_workspace and can.late_directories
    if replace(fixed, sandbox=None) not in _KINDS or early or (workspace is not None and not late):
        return (cold,)
    plain = prompt is None and workspace is None and not config.options.early
    spares = [key for key in _prepared(can, fixed) if plain or not key.primed]
    return (*(key for key in spares if key != cold), cold)
