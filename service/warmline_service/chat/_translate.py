"""From the CLI's lines to events; a line that means nothing here passes on as `raw`."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import msgspec

from warmline_service.chat._agents import Agents
from warmline_service.sessions.events import (
    Block,
    Body,
    Message,
    Notice,
    NoticeKind,
    OtherBlock,
    Raw,
    TextBlock,
    TextDelta,
    ThinkingBlock,
    ThinkingDelta,
    ToolCall,
    ToolInputDelta,
    ToolResult,
)
from warmline_service.worker import (
    ApiRetry,
    Assistant,
    CliMessage,
    CommandLifecycle,
    CompactBoundary,
    ContentBlockDelta,
    MessageStop,
    ModelFallback,
    PluginError,
    RateLimitEvent,
    Result,
    StreamEvent,
    System,
    SystemInit,
    Task,
    TaskNotification,
    TaskUpdated,
    Unknown,
    User,
    repair,
)

# Lines of type `system` that say nothing which an event does not say better.
_KNOWN_SYSTEM = {"init", "status", "session_state_changed", "thinking_tokens"}
# The CLI's own words in the model's place, such as the text of an API error.
_SYNTHETIC = "<synthetic>"


def begins_turn(message: CliMessage, turn_id: str) -> bool:
    """Whether from this line on what comes is the turn's."""
    if isinstance(message, CommandLifecycle):
        return message.command_uuid == turn_id and message.state == "started"
    return isinstance(message, SystemInit) or result_of(message, turn_id) is not None


def result_of(message: CliMessage, turn_id: str) -> Result | None:
    """The line, where it is the turn's end. A version that names no messages ends the running turn."""
    if not isinstance(message, Result):
        return None
    unnamed = message.user_message_uuid is None and not message.user_message_uuids
    return message if unnamed or message.covers(turn_id) else None


class Translator:
    """Translates the lines of one turn; keeps the parts of messages that are not whole yet."""

    def __init__(self) -> None:
        self._open: dict[str, Message] = {}
        self._agents = Agents()

    def translate(self, message: CliMessage) -> Iterable[tuple[str, Body]]:
        """The line's events, each with the tool call of the sub-agent that it belongs to, or ``."""
        # Nearly all lines are of this kind; a generator for each is a good part of what they cost here.
        if type(message) is StreamEvent:
            return self._stream_event(message)
        return self._translate_other(message)

    def _translate_other(self, message: CliMessage) -> Iterator[tuple[str, Body]]:
        match message:
            case Assistant():
                yield from self._assistant(message)
            case User():
                parent = message.parent_tool_use_id or ""
                yield from self.flush(parent)
                for result in _tool_results(message):
                    # Nothing says that a sub-agent's message is whole, but that it has come back.
                    if result.tool_call_id:
                        yield from self.flush(result.tool_call_id)
                    yield parent, result
            case ApiRetry() | ModelFallback() | CompactBoundary() | RateLimitEvent():
                yield "", _notice(message)
            case SystemInit(plugin_errors=errors):
                for error in errors or ():
                    yield "", _not_loaded(error)
            case Task():
                yield from self._task(message)
            case Unknown():
                yield "", raw(message)
            case System(subtype=subtype) if subtype not in _KNOWN_SYSTEM:
                yield "", raw(message)

    def flush(self, parent: str | None = None) -> Iterator[tuple[str, Body]]:
        """The messages that are whole now: of one parent, or all at the turn's end."""
        for key in [parent] if parent is not None else list(self._open):
            whole = self._open.pop(key, None)
            if whole is not None:
                yield key, whole

    def _stream_event(self, message: StreamEvent) -> Iterable[tuple[str, Body]]:
        parent, event = message.parent_tool_use_id or "", message.event
        if type(event) is ContentBlockDelta:
            body = _delta(event)
            return ((parent, body),) if body is not None else ()
        return self.flush(parent) if type(event) is MessageStop else ()

    def _assistant(self, message: Assistant) -> Iterator[tuple[str, Body]]:
        parent, head = message.parent_tool_use_id or "", message.message
        if head.model == _SYNTHETIC:
            return
        known = self._open.get(parent)
        if known is not None and known.id != head.id:
            yield from self.flush(parent)
            known = None
        size = len(bytes(head.content))
        blocks = tuple(_block(block, size) for block in _content(head.content))
        calls = [block for block in blocks if isinstance(block, ToolCall)]
        self._agents.saw(calls, parent)
        yield from ((parent, call) for call in calls)
        self._open[parent] = Message(
            head.id,
            head.model,
            (known.content if known else ()) + blocks,
            message.aborted or (known.aborted if known else False),
        )

    def _task(self, message: Task) -> Iterator[tuple[str, Body]]:
        if isinstance(message, TaskUpdated) and self._agents.knows(message):
            return  # Other lines say the same, and when.
        told = self._agents.take(message)
        if told is None:
            yield "", raw(message)
            return
        if isinstance(message, TaskNotification):
            yield from self.flush(told[1].tool_call_id)
        yield told


def raw(message: CliMessage, *, echo: bool = False) -> Raw:
    """A line as it was; `echo` where events of other kinds say the same."""
    return Raw(message.type, message.line.decode("utf-8", "replace"), echo)


def _delta(event: ContentBlockDelta) -> Body | None:
    index, delta = event.index, event.delta
    match delta.type:
        case "text_delta":
            return TextDelta(delta.text, index)
        case "thinking_delta":
            return ThinkingDelta(delta.thinking, index)
        case "input_json_delta":
            return ToolInputDelta(delta.partial_json, index)
    return None  # A signature, or what a later API adds: the whole block has it.


def _content(content: msgspec.Raw) -> list[dict[str, Any]]:
    decoded = msgspec.json.decode(repair(bytes(content)))
    return (
        [block for block in decoded if isinstance(block, dict)] if isinstance(decoded, list) else []
    )


def _block(block: dict[str, Any], size: int) -> Block:
    match block:
        case {"type": "text", "text": str(text)}:
            return TextBlock(text)
        case {"type": "thinking", "thinking": str(text)}:
            return ThinkingBlock(text, str(block.get("signature") or ""))
        case {"type": "tool_use", "id": str(identifier), "name": str(name), "input": dict(given)}:
            return ToolCall(identifier, name, given, size)
    return OtherBlock(block, size)


def _tool_results(message: User) -> Iterator[ToolResult]:
    for block in _content(message.message.content):
        if block.get("type") == "tool_result":
            yield ToolResult(
                str(block.get("tool_use_id") or ""),
                _text(block.get("content")),
                bool(block.get("is_error")),
            )


def _text(content: object) -> str:
    if isinstance(content, str):
        return content
    parts = content if isinstance(content, list) else []
    return "\n".join(
        str(part.get("text")) for part in parts if isinstance(part, dict) and part.get("text")
    )


def _not_loaded(error: PluginError) -> Notice:
    about = {"plugin": error.plugin, "type": error.type}
    return Notice(NoticeKind.WARNING, "plugin_failed", error.message or "Not loaded.", about)


def _notice(message: ApiRetry | ModelFallback | CompactBoundary | RateLimitEvent) -> Notice:
    match message:
        case ApiRetry():
            return Notice(
                NoticeKind.RETRYING,
                "api_retry",
                f"The model request failed ({message.error or 'unknown'}); trying again.",
                {
                    "attempt": str(message.attempt),
                    "maxRetries": str(message.max_retries),
                    "retryDelayMs": f"{message.retry_delay_ms:.0f}",
                    "status": str(message.error_status or ""),
                },
            )
        case ModelFallback():
            models = {
                "original": message.original_model or "",
                "fallback": message.fallback_model or "",
            }
            text = f"{models['fallback']} answers in place of {models['original']}."
            return Notice(NoticeKind.MODEL_FALLBACK, message.trigger or "fallback", text, models)
        case CompactBoundary():
            text = "The conversation before this point was summarised."
            return Notice(NoticeKind.COMPACTING, "compact_boundary", text)
        case RateLimitEvent():
            limit = message.rate_limit_info
            status = limit.status if limit else "unknown"
            return Notice(
                NoticeKind.RATE_LIMIT, "rate_limit", f"Rate limit: {status}.", {"status": status}
            )
