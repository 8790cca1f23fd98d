"""Events of what the model writes, its tools give back and its sub-agents do."""

from __future__ import annotations

import enum
from collections.abc import Mapping
from typing import Any

from warmline_service.sessions._tagged import Tagged


class TextDelta(Tagged, frozen=True, tag="text_delta"):
    """More text of a content block."""

    text: str
    block: int


class ThinkingDelta(Tagged, frozen=True, tag="thinking_delta"):
    """More thinking of a content block."""

    text: str
    block: int


class ToolInputDelta(Tagged, frozen=True, tag="tool_input_delta"):
    """More of a tool call's input, as JSON text."""

    text: str
    block: int


class TextBlock(Tagged, frozen=True, tag="text_block"):
    """Text in a message."""

    text: str


class ThinkingBlock(Tagged, frozen=True, tag="thinking_block"):
    """Thinking in a message."""

    text: str
    signature: str


class OtherBlock(Tagged, frozen=True, tag="other_block"):
    """A kind of block that has no class here, as the provider sent it; `size` as JSON in bytes."""

    content: Mapping[str, Any]
    size: int = 0


class ToolCall(Tagged, frozen=True, tag="tool_call"):
    """A whole tool call; `size` is its input's as JSON in bytes."""

    id: str
    name: str
    input: Mapping[str, Any]
    size: int = 0


Block = TextBlock | ThinkingBlock | ToolCall | OtherBlock


class Message(Tagged, frozen=True, tag="message"):
    """A whole assistant message, or what was written of one that was cut."""

    id: str
    model: str
    content: tuple[Block, ...]
    aborted: bool = False


class ToolResult(Tagged, frozen=True, tag="tool_result"):
    """What a tool gave back."""

    tool_call_id: str
    text: str
    is_error: bool


class AgentState(enum.StrEnum):
    """How far a sub-agent is."""

    STARTED = "started"
    WORKING = "working"
    COMPLETED = "completed"
    FAILED = "failed"
    STOPPED = "stopped"


class AgentEvent(Tagged, frozen=True, tag="agent_event"):
    """How far a sub-agent is, what it does or has come to, and what it took; `seconds` since it started."""

    tool_call_id: str
    agent: str
    state: AgentState
    text: str = ""
    last_tool: str = ""
    tool_calls: int = 0
    tokens: int = 0
    seconds: float = 0.0
