"""Which CLI binary is used."""

from __future__ import annotations

import importlib.util
import os
import shutil
from pathlib import Path

from warmline_service.config import CliSettings
from warmline_service.errors import Reason, WarmlineError

_HINT = "Install it with `pip install 'warmline[cli]'`, or set cli.path to a `claude` binary."


def find_cli(settings: CliSettings) -> Path:
    """`cli.path`, else the binary in claude-agent-sdk, else `claude` on PATH.

    Raises CLI_NOT_FOUND, with what to do about it.
    """
    if settings.path is not None:
        return _checked(settings.path.expanduser().absolute(), "cli.path: ")
    bundled = _bundled()
    if bundled is not None:
        return _checked(bundled, "")
    found = shutil.which("claude")
    if found is None:
        raise WarmlineError(Reason.CLI_NOT_FOUND, f"There is no Claude Code CLI here. {_HINT}")
    return Path(found).absolute()


def _bundled() -> Path | None:
    # find_spec of a top-level package runs none of its code.
    spec = importlib.util.find_spec("claude_agent_sdk")
    if spec is None or spec.origin is None:
        return None
    binary = Path(spec.origin).parent / "_bundled" / "claude"
    return binary if binary.exists() else None


def _checked(path: Path, where: str) -> Path:
    if not path.is_file():
        problem = "is not a file" if path.exists() else "does not exist"
    elif not os.access(path, os.X_OK):
        problem = "is not executable (chmod +x)"
    else:
        return path
    raise WarmlineError(Reason.CLI_NOT_FOUND, f"{where}{path} {problem}. {_HINT}")
