"""A tool call that waits for an answer while no process runs: where one process left off, another goes on."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import msgspec
from msgspec import Struct

from warmline_service.worker._messages import JsonObject
from warmline_service.worker._options import Options, PermissionMode

# What the CLI says beside the answer to the call that it goes on from. Its own words, which would be a
# user's, ask the model to go on from somewhere.
RESUME_PROMPT = (
    "<system-reminder>The call above had to wait for an approval, which is why its result comes only "
    "now. Go on as if it had come at once.</system-reminder>"
)

# The one tool that is not the same in every mode: it leaves the one that it is called in.
_OF_PLAN = "ExitPlanMode"


@dataclass(frozen=True, eq=False)
class Pending:
    """A call of a tool that nobody has allowed or denied yet; `options` are its session's."""

    id: str
    tool: str
    input: Mapping[str, Any] = field(repr=False)
    options: Options = field(repr=False)

    @property
    def mode(self) -> PermissionMode:
        """The mode in which the CLI looks at the call again: one in which it asks again."""
        return "plan" if self.tool == _OF_PLAN else "default"

    def marker(self) -> JsonObject:
        """The entry at the end of a transcript that makes the CLI take the call up when it starts.

        It is what the CLI writes itself where a hook has deferred a call.
        """
        return {
            "type": "hook_deferred_tool",
            "toolUseID": self.id,
            "toolName": self.tool,
            "toolInput": dict(self.input),
            "hookName": "PreToolUse",
            "hookEvent": "PreToolUse",
            "permissionMode": self.mode,
        }


class _Block(Struct):
    type: str = ""
    id: str = ""
    tool_use_id: str = ""


class _Body(Struct):
    id: str = ""
    content: str | list[_Block] = ""


class _Line(Struct):
    type: str = ""
    message: _Body | None = None


_lines = msgspec.json.Decoder(_Line)


def unanswered(lines: Iterable[bytes]) -> set[str]:
    """The tool calls of a conversation's last answer that have no result; `lines` are its transcript."""
    last, calls = "", set[str]()
    for line in lines:
        try:
            entry = _lines.decode(line)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
            continue
        if entry.message is None or isinstance(entry.message.content, str):
            continue
        if entry.type == "assistant" and entry.message.id != last:
            last, calls = entry.message.id, set()
        for block in entry.message.content:
            if block.type == "tool_use" and entry.type == "assistant":
                calls.add(block.id)
            elif block.type == "tool_result":
                calls.discard(block.tool_use_id)
    return calls
