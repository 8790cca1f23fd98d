"""The CLI's command line: flags of ours and checked values, nothing that a caller wrote."""

from __future__ import annotations

import re
from pathlib import Path

from warmline_service.errors import WarmlineError, field_invalid
from warmline_service.worker._key import SpawnKey

_MODEL = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:/@\[\]-]{0,127}")

_FLAGS = (
    "-p",
    "--input-format=stream-json",
    "--output-format=stream-json",
    "--verbose",
    "--include-partial-messages",
    # A workspace's own settings could send the CLI, and what it holds, elsewhere.
    "--setting-sources=",
    "--strict-mcp-config",
)


def check_model(name: str) -> str:
    """`name` again, if it can be a model's id or alias; raises FIELD_INVALID."""
    if _MODEL.fullmatch(name) is None:
        raise _bad_model()
    return name


def build_argv(
    binary: Path,
    key: SpawnKey,
    prompt_file: Path,
    transcript: Path | None = None,
    *,
    mirror: bool = False,
) -> tuple[str, ...]:
    """The command for `key`: a system prompt is read from `prompt_file`, a history from `transcript`."""
    argv = [str(binary), *_FLAGS]
    if mirror:
        argv.append("--session-mirror")
    if transcript is not None:
        argv.append(f"--resume={transcript}")
    if key.model is not None:
        argv.append(f"--model={check_model(key.model)}")
    if key.system_prompt is not None:
        prefix = "append-" if key.system_prompt.kind == "append" else ""
        argv.append(f"--{prefix}system-prompt-file={prompt_file}")
    return tuple(argv)


def _bad_model() -> WarmlineError:
    return field_invalid("model", "not a model's id: letters, digits and ._:/@[]-, 128 at most")
