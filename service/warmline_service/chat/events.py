"""What a conversation tells its streams: the domain's events, one class for each event of the contract."""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from warmline_service.errors import WarmlineError
from warmline_service.pool import Start


class Detail(enum.IntEnum):
    """How much a stream is told: each level holds those below it."""

    TEXT = 1
    BLOCKS = 2
    RAW = 3


class StopReason(enum.StrEnum):
    """Why the model stopped; the values are the provider's words."""

    UNSPECIFIED = "unspecified"
    END_TURN = "end_turn"
    MAX_TOKENS = "max_tokens"
    STOP_SEQUENCE = "stop_sequence"
    REFUSAL = "refusal"
    TOOL_USE = "tool_use"
    INTERRUPTED = "interrupted"


class InterruptOutcome(enum.StrEnum):
    """What became of an interrupt."""

    STOPPED = "stopped"
    NOTHING_RUNNING = "nothing_running"
    LATCHED = "latched"
    FORCED = "forced"


class NoticeKind(enum.StrEnum):
    """What a notice is about."""

    OTHER = "other"
    RETRYING = "retrying"
    RATE_LIMIT = "rate_limit"
    MODEL_FALLBACK = "model_fallback"
    COMPACTING = "compacting"
    WARNING = "warning"
    CONTEXT_LOST = "context_lost"


@dataclass(frozen=True, slots=True)
class Tokens:
    """What one model used, or all of them; cost in US dollars."""

    input: int = 0
    output: int = 0
    cache_read: int = 0
    cache_creation: int = 0
    cost_usd: float = 0.0

    def __add__(self, other: Tokens) -> Tokens:
        return Tokens(
            self.input + other.input,
            self.output + other.output,
            self.cache_read + other.cache_read,
            self.cache_creation + other.cache_creation,
            self.cost_usd + other.cost_usd,
        )


@dataclass(frozen=True, slots=True)
class Usage:
    """What a turn used, by model id."""

    by_model: Mapping[str, Tokens] = field(default_factory=dict)

    @property
    def total(self) -> Tokens:
        """The sum over all models."""
        return sum(self.by_model.values(), Tokens())


@dataclass(frozen=True, slots=True)
class Latency:
    """Where a turn's time went, in seconds; None where it does not apply."""

    start: Start
    misses: tuple[str, ...] = ()
    queue: float | None = None
    spawn: float | None = None
    bind: float | None = None
    cli: float | None = None
    first_token: float | None = None
    total: float | None = None


@dataclass(frozen=True, slots=True)
class SessionOpened:
    """The stream is attached. `start` is None while no process has been taken."""

    session_id: str
    start: Start | None
    model: str
    cli_version: str
    last_seq: int


@dataclass(frozen=True, slots=True)
class ServerDraining:
    """The server is going away; come back after so many seconds."""

    retry_after: float


@dataclass(frozen=True, slots=True)
class TurnQueued:
    """The message was accepted; so many turns go before it."""

    position: int


@dataclass(frozen=True, slots=True)
class TurnStarted:
    """The turn has its process."""

    latency: Latency


@dataclass(frozen=True, slots=True)
class PermissionDenial:
    """A tool call that was not allowed to run."""

    tool_name: str
    tool_call_id: str


@dataclass(frozen=True, slots=True)
class TurnCompleted:
    """The turn's good end."""

    stop_reason: StopReason
    result: str
    usage: Usage
    latency: Latency | None
    denials: tuple[PermissionDenial, ...] = ()
    model_requests: int = 0


@dataclass(frozen=True, slots=True)
class TurnFailed:
    """The turn's bad end."""

    error: WarmlineError
    context_lost: bool = False
    usage: Usage = field(default_factory=Usage)
    latency: Latency | None = None


@dataclass(frozen=True, slots=True)
class InterruptResult:
    """What became of an interrupt."""

    outcome: InterruptOutcome


@dataclass(frozen=True, slots=True)
class TextDelta:
    """More text of a content block."""

    text: str
    block: int


@dataclass(frozen=True, slots=True)
class ThinkingDelta:
    """More thinking of a content block."""

    text: str
    block: int


@dataclass(frozen=True, slots=True)
class ToolInputDelta:
    """More of a tool call's input, as JSON text."""

    text: str
    block: int


@dataclass(frozen=True, slots=True)
class TextBlock:
    """Text in a message."""

    text: str


@dataclass(frozen=True, slots=True)
class ThinkingBlock:
    """Thinking in a message."""

    text: str
    signature: str


@dataclass(frozen=True, slots=True)
class OtherBlock:
    """A kind of block that has no class here, as the provider sent it; `size` as JSON in bytes."""

    content: Mapping[str, Any]
    size: int = 0


@dataclass(frozen=True, slots=True)
class ToolCall:
    """A whole tool call; `size` is its input's as JSON in bytes."""

    id: str
    name: str
    input: Mapping[str, Any]
    size: int = 0


Block = TextBlock | ThinkingBlock | ToolCall | OtherBlock


@dataclass(frozen=True, slots=True)
class Message:
    """A whole assistant message, or what was written of one that was cut."""

    id: str
    model: str
    content: tuple[Block, ...]
    aborted: bool = False


@dataclass(frozen=True, slots=True)
class ToolResult:
    """What a tool gave back."""

    tool_call_id: str
    text: str
    is_error: bool


@dataclass(frozen=True, slots=True)
class Notice:
    """Something worth knowing that ends nothing."""

    kind: NoticeKind
    code: str
    message: str
    metadata: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Raw:
    """A line of the CLI, as it was."""

    type: str
    json: str


Delta = TextDelta | ThinkingDelta | ToolInputDelta
Ending = TurnCompleted | TurnFailed
Body = (
    SessionOpened
    | ServerDraining
    | TurnQueued
    | TurnStarted
    | TurnCompleted
    | TurnFailed
    | InterruptResult
    | TextDelta
    | ThinkingDelta
    | ToolInputDelta
    | Message
    | ToolCall
    | ToolResult
    | Notice
    | Raw
)

# What a stream with Detail.TEXT is not told.
BLOCK_EVENTS = (ThinkingDelta, ToolInputDelta, Message, ToolCall, ToolResult, Raw)


@dataclass(frozen=True, slots=True)
class Event:
    """One thing that happened in a session. `time` is seconds since the epoch (Unix)."""

    session_id: str
    turn_id: str
    epoch: int
    seq: int
    time: float
    body: Body
    parent: str = ""
