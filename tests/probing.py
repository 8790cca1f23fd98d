"""What the real CLI can do, tried once in a run: the answer is the same for every service in it."""

from __future__ import annotations

from pathlib import Path

import claude_agent_sdk
from warmline_service.worker import Capabilities, Site, probe

_BUNDLED = Path(claude_agent_sdk.__file__).parent
_known: dict[tuple[Path, int, tuple[str, ...]], Capabilities] = {}


async def probe_once(site: Site) -> Capabilities:
    """As `probe`; the bundled CLI is tried no second time under the same guard, any other one always."""
    if not site.binary.is_relative_to(_BUNDLED):
        return await probe(site)
    key = site.binary, site.binary.stat().st_mtime_ns, site.guard
    if key not in _known:
        _known[key] = await probe(site)
    return _known[key]
