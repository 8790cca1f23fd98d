"""From the CLI's lines about its tasks to events: those of sub-agents have one, others pass as they were."""

from __future__ import annotations

from collections.abc import Sequence

from msgspec import structs

from warmline_service.sessions.events import AgentEvent, AgentState, ToolCall
from warmline_service.worker import Task, TaskNotification, TaskProgress, TaskStarted

_SUB_AGENT = "local_agent"
# More than a sub-agent calls tools, uses tokens or takes seconds; it has to fit into the contract.
_MOST = 2**31 - 1
_ENDS = {"completed": AgentState.COMPLETED, "failed": AgentState.FAILED}


class Agents:
    """The sub-agents of one turn."""

    def __init__(self) -> None:
        self._running: dict[str, AgentEvent] = {}
        # The sub-agent's call that a call was made inside.
        self._inside: dict[str, str] = {}

    def saw(self, calls: Sequence[ToolCall], parent: str) -> None:
        """Remember where calls were made: nothing else says inside which sub-agent another one runs."""
        if parent:
            self._inside.update((call.id, parent) for call in calls)

    def take(self, message: Task) -> tuple[str, AgentEvent] | None:
        """What to tell of a line, with the call that it belongs to; None where it is of no sub-agent."""
        if isinstance(message, TaskStarted) and message.task_type == _SUB_AGENT:
            self._running[message.task_id] = AgentEvent(
                message.tool_use_id or "",
                message.subagent_type or "",
                AgentState.STARTED,
                message.description,
            )
        known = self._running.get(message.task_id)
        if known is None:
            return None
        told = _event(known, message)
        if isinstance(message, TaskNotification):
            del self._running[message.task_id]
        return self._inside.get(known.tool_call_id, ""), told

    def knows(self, message: Task) -> bool:
        """Whether it is about a sub-agent that is at work."""
        return message.task_id in self._running


def _event(known: AgentEvent, message: Task) -> AgentEvent:
    state, text, last_tool = AgentState.STARTED, message.description, ""
    if isinstance(message, TaskProgress):
        state, last_tool = AgentState.WORKING, message.last_tool_name or ""
    elif isinstance(message, TaskNotification):
        state, text = _ENDS.get(message.status, AgentState.STOPPED), message.summary
    return structs.replace(
        known,
        state=state,
        text=text,
        last_tool=last_tool,
        tool_calls=round(_bounded(message.usage.tool_uses)),
        tokens=round(_bounded(message.usage.total_tokens)),
        seconds=_bounded(message.usage.duration_ms / 1000),
    )


def _bounded(figure: float) -> float:
    return min(max(0, figure), _MOST)
