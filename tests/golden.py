"""What a stream has told, as it always is: without ids, times and counts, and however its text was cut."""

from __future__ import annotations

import json
import re
from difflib import unified_diff
from pathlib import Path
from typing import Any

# A turn that has thinking, text and a tool, for the loopback model.
TURN = '::think 3\n::say hello **you**\n::tool Bash {"command":"echo hi"}\n::say done'
_KEPT = Path(__file__).parent / "http" / "golden"
_UUID = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}")
_VOLATILE = (
    (r'"time": "[^"]+"', '"time": "TIME"'),
    (r'"(seq|lastSeq)": "[0-9]+"', r'"\1": "N"'),
    (r'"id": "1-[0-9]+\.', r'"id": "1-N.'),
    (r"(msg|toolu)_[0-9a-f]+", r"\1_X"),
    (r'"cliVersion": "[^"]+"', '"cliVersion": "V"'),
    (r'"latency": \{[^}]*\}', '"latency": {}'),
    (r'"(\w+Tokens)": "[0-9]+"', r'"\1": "N"'),
    (r'"costUsd": [0-9.e-]+', '"costUsd": 0'),
)
_CUT = re.compile(r'"(text|partialJson)": "(?:[^"\\]|\\.)*"')


class Golden:
    """Takes what is told and compares it with a file; the same id is the same name throughout."""

    def __init__(self) -> None:
        self._names: dict[str, str] = {}
        self._lines: list[str] = []

    def take(self, kind: str, data: Any, *, delta: bool = False) -> None:
        """Take one event; deltas that follow each other are one."""
        text = json.dumps(data, sort_keys=True)
        text = _UUID.sub(lambda id_: self._names.setdefault(id_[0], f"<{len(self._names)}>"), text)
        for pattern, put in _VOLATILE:
            text = re.sub(pattern, put, text)
        if delta:
            text = _CUT.sub(r'"\1": "…"', text)
        line = f"{kind} {text}"
        if not delta or self._lines[-1:] != [line]:
            self._lines.append(line)

    def check(self, name: str) -> None:
        """It is what the file of this name has."""
        kept = (_KEPT / name).read_text().splitlines()
        changed = "\n".join(unified_diff(kept, self._lines, name, "told", lineterm=""))
        assert not changed, changed
