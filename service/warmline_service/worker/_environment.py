"""The environment of a CLI process, built from nothing: none of the service's own gets in."""

from __future__ import annotations

from collections.abc import Mapping

from warmline_service.worker._slot import Slot

# Every process below the CLI inherits it, which is how a whole tree is found.
MARKER = "WARMLINE_SLOT"


def build_environment(slot: Slot, endpoint: Mapping[str, str], max_retries: int) -> dict[str, str]:
    """All variables of the process in `slot`; `endpoint` may add to them but change none."""
    return {
        **endpoint,
        "PATH": "/usr/local/bin:/usr/bin:/bin",
        "LANG": "C.UTF-8",
        "HOME": str(slot.home),
        "TMPDIR": str(slot.tmp),
        "CLAUDE_CODE_TMPDIR": str(slot.tmp),
        "CLAUDE_CONFIG_DIR": str(slot.config),
        "CLAUDE_CODE_MAX_RETRIES": str(max_retries),
        "CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC": "1",
        "DISABLE_AUTOUPDATER": "1",
        # A process begins no turn by itself: each turn belongs to a message.
        "CLAUDE_CODE_DISABLE_BACKGROUND_TASKS": "1",
        "CLAUDE_CODE_DISABLE_CRON": "1",
        MARKER: slot.id,
    }
