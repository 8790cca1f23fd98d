"""How much the machine can bear."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import psutil

from warmline_service.config import PoolSettings

_SHARE = 0.6
_CGROUP_LIMITS = (
    Path("/sys/fs/cgroup/memory.max"),
    Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"),
)


def default_memory_budget(limits: Iterable[Path] = _CGROUP_LIMITS) -> int:
    """Bytes for all processes: 60 % of what is available, within the container's limit."""
    available = int(psutil.virtual_memory().available)
    return int(min([available, *filter(None, map(_limit, limits))]) * _SHARE)


def _limit(path: Path) -> int | None:
    try:
        text = path.read_text().strip()
    except OSError:
        return None  # No such controller here.
    return int(text) if text.isdigit() else None


def capacity(settings: PoolSettings, budget: int) -> int:
    """How many processes there may be; at least one."""
    return settings.max_processes or max(1, budget // settings.process_estimate_bytes)
