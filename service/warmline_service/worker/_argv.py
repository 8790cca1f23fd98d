"""The CLI's command line: flags of ours and checked values, nothing that a caller wrote."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from warmline_service.errors import WarmlineError, field_invalid
from warmline_service.worker._equipment import Debug
from warmline_service.worker._key import SpawnKey
from warmline_service.worker._pending import Pending

_MODEL = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:/@\[\]-]{0,127}")

# A list of them goes into one argument, in which a comma comes between.
_WORD = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,127}")

_FLAGS = (
    "-p",
    "--input-format=stream-json",
    "--output-format=stream-json",
    "--verbose",
    "--include-partial-messages",
    "--forward-subagent-text",
    "--strict-mcp-config",
    # What needs an approval is asked for; otherwise it is denied, and the model cannot ask the user.
    "--permission-prompt-tool=stdio",
)


def check_model(name: str) -> str:
    """`name` again, if it can be a model's id or alias; raises FIELD_INVALID."""
    if _MODEL.fullmatch(name) is None:
        raise _bad_model()
    return name


@dataclass(frozen=True)
class Files:
    """Where what a caller wrote is read from, so that none of it comes into the command line."""

    prompt: Path
    agents: Path
    transcript: Path | None = None
    debug: Path | None = None
    plugins: tuple[Path, ...] = ()


def build_argv(
    binary: Path, key: SpawnKey, files: Files, *, mirror: bool = False, sandboxed: bool = False
) -> tuple[str, ...]:
    """The command for `key`. Raises FIELD_INVALID for a name that cannot be one.

    `sandboxed`: it can be told later to ask for nothing.
    """
    # Without being asked to, it takes no settings of a workspace's: they could send it elsewhere.
    argv = [str(binary), *_FLAGS, f"--setting-sources={_listed(key.setting_sources)}"]
    if mirror:
        argv.append("--session-mirror")
    if sandboxed:
        argv.append("--allow-dangerously-skip-permissions")
    if files.transcript is not None:
        argv.append(f"--resume={files.transcript}")
    if key.model is not None:
        argv.append(f"--model={check_model(key.model)}")
    if key.system_prompt is not None:
        argv += _prompt_flags(key, files.prompt)
    if key.bare:
        argv.append("--bare")
    if key.tools is not None:
        argv.append(f"--tools={_listed(key.tools)}")
    if key.agent is not None:
        argv += [f"--agents={files.agents}", f"--agent={_listed([key.agent[0]])}"]
    if key.fallback_models:
        argv.append(f"--fallback-model={','.join(map(check_model, key.fallback_models))}")
    argv += [f"--betas={_listed([beta])}" for beta in key.betas]
    argv += [f"--plugin-dir={folder}" for folder in files.plugins]
    if key.debug is not None:
        argv += _debug_flags(key.debug, files.debug)
    if key.max_turns:
        argv.append(f"--max-turns={key.max_turns:d}")
    if key.max_budget_usd:
        argv.append(f"--max-budget-usd={key.max_budget_usd:f}")
    if key.pending is not None:
        argv += _pending_flags(key, key.pending, files.agents)
    return tuple(argv)


def _pending_flags(key: SpawnKey, pending: Pending, agents: Path) -> list[str]:
    """What a process needs at its start which begins with a turn: nothing bound to it would hold in that."""
    options = pending.options
    flags = [f"--permission-mode={pending.mode}"]
    if options.agents and key.agent is None:
        flags.append(f"--agents={agents}")
    if options.effort:
        flags.append(f"--effort={_listed([options.effort])}")
    return flags


def _prompt_flags(key: SpawnKey, file: Path) -> list[str]:
    prompt = key.system_prompt
    assert prompt is not None
    flags = ["--exclude-dynamic-system-prompt-sections"] if prompt.same_everywhere else []
    if prompt.text:
        prefix = "append-" if prompt.kind == "append" else ""
        flags.append(f"--{prefix}system-prompt-file={file}")
    return flags


def _debug_flags(debug: Debug, file: Path | None) -> list[str]:
    flags = [f"--debug-file={file}"]
    if debug.categories:
        flags.append(f"--debug={_listed(debug.categories)}")
    elif debug.exclusions:
        flags.append("--debug=" + ",".join(f"!{_listed([each])}" for each in debug.exclusions))
    return flags


def _listed(words: Sequence[str]) -> str:
    for word in words:
        if _WORD.fullmatch(word) is None:
            raise field_invalid(
                "config", "holds a name with more than letters, digits, `_` and `-`"
            )
    return ",".join(words)


def _bad_model() -> WarmlineError:
    return field_invalid("model", "not a model's id: letters, digits and ._:/@[]-, 128 at most")
