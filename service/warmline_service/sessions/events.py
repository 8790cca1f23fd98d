"""What a conversation tells its streams: the domain's events, one class for each event of the contract.

They are structs, so that they are made, stored and read again at little cost; the tag of each is the name
of its field in the contract.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
from msgspec import Struct

from warmline_service.errors import FieldViolation, Reason, WarmlineError
from warmline_service.sessions._asking import ApprovalOutcome as ApprovalOutcome
from warmline_service.sessions._asking import ApprovalRequested as ApprovalRequested
from warmline_service.sessions._asking import ApprovalResolved as ApprovalResolved
from warmline_service.sessions._asking import CallOutcome as CallOutcome
from warmline_service.sessions._asking import ClientToolCalled as ClientToolCalled
from warmline_service.sessions._asking import ClientToolReturned as ClientToolReturned
from warmline_service.sessions._asking import CredentialRequired as CredentialRequired
from warmline_service.sessions._asking import ServerStatus as ServerStatus
from warmline_service.sessions._tagged import Tagged
from warmline_service.sessions._written import AgentEvent as AgentEvent
from warmline_service.sessions._written import AgentState as AgentState
from warmline_service.sessions._written import Block as Block
from warmline_service.sessions._written import Message as Message
from warmline_service.sessions._written import OtherBlock as OtherBlock
from warmline_service.sessions._written import TextBlock as TextBlock
from warmline_service.sessions._written import TextDelta as TextDelta
from warmline_service.sessions._written import ThinkingBlock as ThinkingBlock
from warmline_service.sessions._written import ThinkingDelta as ThinkingDelta
from warmline_service.sessions._written import ToolCall as ToolCall
from warmline_service.sessions._written import ToolInputDelta as ToolInputDelta
from warmline_service.sessions._written import ToolResult as ToolResult


class Start(enum.StrEnum):
    """How a turn's process was had."""

    HOT = "hot"
    WARM = "warm"
    COLD = "cold"
    RESUMED = "resumed"


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
    TAKEN_OVER = "taken_over"
    EVENTS_EXPIRED = "events_expired"
    PARKED = "parked"


class Tokens(Struct, frozen=True):
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


class Usage(Struct, frozen=True):
    """What a turn used, by model id."""

    by_model: Mapping[str, Tokens] = msgspec.field(default_factory=dict)

    @property
    def total(self) -> Tokens:
        """The sum over all models."""
        return sum(self.by_model.values(), Tokens())

    def plus(self, other: Usage) -> Usage:
        """What both used together."""
        models = dict.fromkeys((*self.by_model, *other.by_model))
        none = Tokens()
        return Usage({m: self.by_model.get(m, none) + other.by_model.get(m, none) for m in models})


class Latency(Struct, frozen=True):
    """Where a turn's time went, in seconds; None where it does not apply."""

    start: Start
    misses: tuple[str, ...] = ()
    queue: float | None = None
    spawn: float | None = None
    bind: float | None = None
    history: float | None = None
    mcp: float | None = None
    cli: float | None = None
    first_token: float | None = None
    total: float | None = None


class SessionOpened(Tagged, frozen=True, tag="session_opened"):
    """The stream is attached. `start` is None while no process has been taken."""

    session_id: str
    start: Start | None
    model: str
    cli_version: str
    last_seq: int
    epoch: int = 1
    running_turn_id: str = ""
    approvals: tuple[ApprovalRequested, ...] = ()
    client_calls: tuple[ClientToolCalled, ...] = ()
    servers: tuple[ServerStatus, ...] = ()
    continued: bool = False


class Checkpointed(Tagged, frozen=True, tag="checkpointed"):
    """The session is found again by these names."""

    continuations: tuple[str, ...]


class SessionUpdated(Tagged, frozen=True, tag="session_updated"):
    """The session is set up differently; the mode is the CLI's word for it."""

    model: str
    permission_mode: str


class ServerDraining(Tagged, frozen=True, tag="server_draining"):
    """The server is going away; come back after so many seconds."""

    retry_after: float
    epoch: int = 1
    seq: int = 0


class TurnQueued(Tagged, frozen=True, tag="turn_queued"):
    """The message was accepted; so many turns go before it. `text` is its beginning."""

    position: int
    key: str = ""
    text: str = ""


class TurnAttached(Tagged, frozen=True, tag="turn_attached"):
    """The message was sent before: its turn's events follow."""

    key: str


class TurnStarted(Tagged, frozen=True, tag="turn_started"):
    """The turn has its process."""

    latency: Latency


class PermissionDenial(Struct, frozen=True):
    """A tool call that was not allowed to run."""

    tool_name: str
    tool_call_id: str


class TurnCompleted(Tagged, frozen=True, tag="turn_completed"):
    """The turn's good end."""

    stop_reason: StopReason
    result: str
    usage: Usage
    latency: Latency | None
    denials: tuple[PermissionDenial, ...] = ()
    model_requests: int = 0
    output: Mapping[str, Any] | None = None


class TurnFailed(Tagged, frozen=True, tag="turn_failed"):
    """The turn's bad end."""

    error: WarmlineError
    context_lost: bool = False
    usage: Usage = msgspec.field(default_factory=Usage)
    latency: Latency | None = None
    key: str = ""


class InterruptResult(Tagged, frozen=True, tag="interrupt_result"):
    """What became of an interrupt."""

    outcome: InterruptOutcome


class Notice(Tagged, frozen=True, tag="notice"):
    """Something worth knowing that ends nothing."""

    kind: NoticeKind
    code: str
    message: str
    metadata: Mapping[str, str] = msgspec.field(default_factory=dict)


class Raw(Tagged, frozen=True, tag="raw"):
    """A line of the CLI, as it was; `echo` where events of other kinds say the same."""

    type: str
    json: str
    echo: bool = False


class DebugLog(Tagged, frozen=True, tag="debug_log"):
    """What the CLI wrote to its debug log in a turn; `dropped` bytes before it are left out."""

    text: str
    dropped: int = 0


Delta = TextDelta | ThinkingDelta | ToolInputDelta
Ending = TurnCompleted | TurnFailed
Body = (
    SessionOpened
    | SessionUpdated
    | Checkpointed
    | ServerDraining
    | TurnQueued
    | TurnAttached
    | TurnStarted
    | TurnCompleted
    | TurnFailed
    | InterruptResult
    | ApprovalRequested
    | ApprovalResolved
    | ClientToolCalled
    | ClientToolReturned
    | ServerStatus
    | CredentialRequired
    | TextDelta
    | ThinkingDelta
    | ToolInputDelta
    | Message
    | ToolCall
    | ToolResult
    | AgentEvent
    | Notice
    | DebugLog
    | Raw
)

# What a stream with Detail.TEXT is not told.
BLOCK_EVENTS = (
    ThinkingDelta,
    ToolInputDelta,
    Message,
    ToolCall,
    ToolResult,
    AgentEvent,
    DebugLog,
    Raw,
)


class Event(Struct, frozen=True, gc=False):
    """One thing that happened in a session. `time` is seconds since the epoch (Unix).

    `seq` is 0 for what is about one stream alone, which is not stored.
    """

    session_id: str
    turn_id: str
    epoch: int
    seq: int
    time: float
    body: Body
    parent: str = ""


# From so many waiting events on, a delta is joined to the one before it where both are of one block.
_JOIN_FROM = 64
# A joined delta grows no further than this, so that joining stays linear.
_JOIN_CHARS = 16 * 1024


def joined(events: Sequence[Event]) -> list[Event]:
    """The same told in fewer events, where there are many: deltas that follow each other in one block
    become one, with the `seq` of the last of them."""
    if len(events) < _JOIN_FROM:
        return list(events)
    out: list[Event] = []
    for event in events:
        whole = _join(out[-1], event) if out else None
        if whole is None:
            out.append(event)
        else:
            out[-1] = whole
    return out


def _join(last: Event, event: Event) -> Event | None:
    old, new = last.body, event.body
    if type(old) is not type(new) or not isinstance(old, Delta) or not isinstance(new, Delta):
        return None
    same = (last.turn_id, last.parent, old.block) == (event.turn_id, event.parent, new.block)
    if not same or len(old.text) >= _JOIN_CHARS:
        return None
    body = type(old)(old.text + new.text, old.block)
    return Event(
        event.session_id, event.turn_id, event.epoch, event.seq, event.time, body, event.parent
    )


def kind_of(body: Body) -> str:
    """The name of the body's field in the contract."""
    tag = body.__struct_config__.tag
    assert isinstance(tag, str)
    return tag


def encode_body(body: Body) -> bytes:
    """The body as it is stored: one JSON object."""
    return _encoder.encode(body)


def decode_body(data: bytes) -> Body:
    """A stored body; raises msgspec.MsgspecError for what no version of this service wrote."""
    return _decoder.decode(data)


def _encode_error(value: object) -> object:
    if isinstance(value, WarmlineError):
        return {
            "reason": value.reason,
            "message": value.message,
            "metadata": value.metadata,
            "retry_after": value.retry_after,
            "violations": [[each.field, each.description] for each in value.violations],
        }
    raise NotImplementedError(f"{type(value).__name__} is not stored")


def _decode_error(kind: type, value: Any) -> object:
    if kind is not WarmlineError:
        raise NotImplementedError(f"{kind.__name__} is not stored")
    return WarmlineError(
        Reason(value["reason"]),
        value["message"],
        metadata=value["metadata"],
        retry_after=value["retry_after"],
        violations=tuple(FieldViolation(*each) for each in value["violations"]),
    )


_encoder = msgspec.json.Encoder(enc_hook=_encode_error)
_decoder: msgspec.json.Decoder[Body] = msgspec.json.Decoder(Body, dec_hook=_decode_error)
