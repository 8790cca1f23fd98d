"""What the CLI writes: one tagged struct for each kind of line that means something to us.

Fields that this service does not use are skipped; `line` always holds the whole line as it came.
Large bodies stay `msgspec.Raw` until somebody asks for them.
"""

from __future__ import annotations

from typing import Any

import msgspec
from msgspec import UNSET, Raw, Struct, UnsetType

from warmline_service.worker._stream import ApiEvent, MessageStop, Usage


class Message(Struct, tag_field="type"):
    """What all lines have: `line` is the line as it came, without its newline."""

    # Set after decoding; named so that no key of the CLI's is taken for it.
    line: bytes = msgspec.field(default=b"", name="warmline:line")

    @property
    def type(self) -> str:
        """The line's own word for what it is."""
        return str(type(self).__struct_config__.tag)


class StreamEvent(Message, tag="stream_event"):
    """A raw event of the model's stream; `parent_tool_use_id` is set inside a subagent."""

    event: ApiEvent = msgspec.field(default_factory=MessageStop)
    parent_tool_use_id: str | None = None
    session_id: str = ""
    ttft_ms: float | None = None


class AssistantBody(Struct):
    """The message of an Assistant line; `content` is a list of blocks."""

    id: str = ""
    model: str = ""
    content: Raw = Raw(b"[]")
    stop_reason: str | None = None
    usage: Usage | None = None


class Assistant(Message, tag="assistant"):
    """One content block of the answer, whole; `aborted` when it was cut short."""

    message: AssistantBody = msgspec.field(default_factory=AssistantBody)
    parent_tool_use_id: str | None = None
    session_id: str = ""
    uuid: str | None = None
    request_id: str | None = None
    aborted: bool = False


class UserBody(Struct):
    """The message of a User line; `content` is a string or a list of blocks."""

    content: Raw = Raw(b'""')


class User(Message, tag="user"):
    """What went to the model on the user's side: tool results, mostly."""

    message: UserBody = msgspec.field(default_factory=UserBody)
    parent_tool_use_id: str | None = None
    session_id: str = ""
    uuid: str | None = None
    replay: bool = msgspec.field(default=False, name="isReplay")
    tool_use_result: Raw | UnsetType = UNSET


class ModelUsage(Struct, rename="camel"):
    """What one model used, as the CLI counts."""

    input_tokens: int = 0
    output_tokens: int = 0
    cache_read_input_tokens: int = 0
    cache_creation_input_tokens: int = 0
    cost_usd: float = msgspec.field(default=0.0, name="costUSD")


class Origin(Struct):
    """What began a turn that no user message began."""

    kind: str = ""


class Result(Message, tag="result"):
    """A turn has ended; `*_ms` are milliseconds, cost (USD) and `model_usage` are cumulative."""

    subtype: str = ""
    is_error: bool = False
    result: str | None = None
    stop_reason: str | None = None
    terminal_reason: str | None = None
    num_turns: int = 0
    duration_ms: float | None = None
    duration_api_ms: float | None = None
    ttft_ms: float | None = None
    time_to_request_ms: float | None = None
    session_id: str = ""
    total_cost_usd: float = 0.0
    usage: Usage | None = None
    model_usage: dict[str, ModelUsage] = msgspec.field(default_factory=dict, name="modelUsage")
    turn_usage: dict[str, ModelUsage] | None = msgspec.field(
        default=None, name="model_usage_since_last_result"
    )
    api_error_status: int | None = None
    api_error_type: str | None = None
    errors: list[str] = msgspec.field(default_factory=list)
    user_message_uuid: str | None = None
    user_message_uuids: list[str] | None = None
    origin: Origin | None = None

    @property
    def failed(self) -> bool:
        """Whether the turn ended otherwise than by an answer."""
        return self.is_error or self.subtype != "success"

    @property
    def interrupted(self) -> bool:
        """Whether it ended because it was asked to."""
        return (self.terminal_reason or "").startswith("aborted")

    def covers(self, uuid: str) -> bool:
        """Whether it is the end of the message with this uuid."""
        return uuid == self.user_message_uuid or uuid in (self.user_message_uuids or ())


class ControlReply(Struct):
    """The answer to a control request of ours."""

    subtype: str
    request_id: str
    response: Raw = Raw(b"{}")
    error: str = ""
    error_code: str | None = None


class ControlResponse(Message, tag="control_response"):
    """Carries a ControlReply."""

    response: ControlReply = msgspec.field(default_factory=lambda: ControlReply("", ""))


class ControlAsk(Struct):
    """What the CLI asks of us: `can_use_tool` whether a tool may run, `mcp_message` a server of ours."""

    subtype: str = ""
    tool_name: str = ""
    tool_use_id: str = ""
    description: str = ""
    input: Raw = Raw(b"{}")
    permission_suggestions: Raw = Raw(b"[]")
    server_name: str = ""
    message: Raw = Raw(b"{}")


class ControlRequest(Message, tag="control_request"):
    """A question of the CLI, which waits for the answer."""

    request_id: str = ""
    request: ControlAsk = msgspec.field(default_factory=ControlAsk)


class ControlCancelRequest(Message, tag="control_cancel_request"):
    """The CLI no longer waits for an answer."""

    request_id: str = ""


class CommandLifecycle(Message, tag="command_lifecycle"):
    """How far a message with a uuid is: queued, started, completed, cancelled."""

    command_uuid: str = ""
    state: str = ""


class RateLimit(Struct, rename="camel"):
    """Where an account's limit stands; `resets_at` is Unix time in seconds."""

    status: str = ""
    resets_at: float | None = None
    rate_limit_type: str | None = None


class RateLimitEvent(Message, tag="rate_limit_event"):
    """An account's limit has changed."""

    rate_limit_info: RateLimit | None = None


class KeepAlive(Message, tag="keep_alive"):
    """Means nothing."""


class ConversationReset(Message, tag="conversation_reset"):
    """The conversation was cleared."""

    new_conversation_id: str = ""


class System(Message, tag="system"):
    """A system line of a subtype that has no struct of its own."""

    subtype: str = ""
    session_id: str = ""
    parent_tool_use_id: str | None = None


class PluginError(msgspec.Struct, frozen=True):
    """A plugin, or a part of one, that was not loaded."""

    plugin: str = ""
    type: str = ""
    message: str = ""


class SystemInit(System, tag="system"):
    """A turn begins: what it begins with."""

    model: str = ""
    cwd: str = ""
    version: str = msgspec.field(default="", name="claude_code_version")
    permission_mode: str = msgspec.field(default="", name="permissionMode")
    tools: list[str] = msgspec.field(default_factory=list)
    plugin_errors: list[PluginError] | None = None


class SystemStatus(System, tag="system"):
    """What the CLI is doing: requesting, compacting, or None."""

    status: str | None = None
    user_message_uuids: list[str] | None = None


class ApiRetry(System, tag="system"):
    """A model request failed and will be made again in `retry_delay_ms` milliseconds."""

    attempt: int = 0
    max_retries: int = 0
    retry_delay_ms: float = 0.0
    error_status: int | None = None
    error: str | None = None


class ModelFallback(System, tag="system"):
    """Another model answers than the one asked for."""

    trigger: str | None = None
    original_model: str | None = None
    fallback_model: str | None = None


class CompactBoundary(System, tag="system"):
    """The conversation before this point was summarised."""

    compact_metadata: Raw | UnsetType = UNSET


class TaskUsage(Struct):
    """What a task has used; the time in milliseconds."""

    total_tokens: int = 0
    tool_uses: int = 0
    duration_ms: float = 0.0


class Task(System, tag="system"):
    """What all lines about a task of the CLI's have: a sub-agent's work, or a command's in the background."""

    task_id: str = ""
    tool_use_id: str | None = None
    description: str = ""
    usage: TaskUsage = msgspec.field(default_factory=TaskUsage)


class TaskStarted(Task, tag="system"):
    """A task has begun; `task_type` is `local_agent` for a sub-agent."""

    task_type: str = ""
    subagent_type: str | None = None


class TaskProgress(Task, tag="system"):
    """A task goes on: `description` says with what."""

    last_tool_name: str | None = None


class TaskUpdated(Task, tag="system"):
    """A task is not what it was."""


class TaskNotification(Task, tag="system"):
    """A task has ended: completed, failed, stopped or killed."""

    status: str = ""
    summary: str = ""


class TranscriptMirror(Message, tag="transcript_mirror"):
    """Entries that the CLI has just added to a transcript: the conversation's, or a sub-agent's."""

    file_path: str = msgspec.field(default="", name="filePath")
    entries: list[Raw] = msgspec.field(default_factory=list)

    @property
    def of_sub_agent(self) -> bool:
        """Whether a sub-agent of the conversation wrote them."""
        return "/subagents/" in self.file_path


class Unknown(Struct):
    """A JSON line of a type, or with fields, that this service does not know; "" for no type."""

    type: str
    line: bytes


class Garbage(Struct):
    """A line that is not JSON: whatever wrote it is not to be trusted any further."""

    line: bytes
    type: str = "garbage"


KnownMessage = (
    StreamEvent
    | Assistant
    | User
    | Result
    | ControlResponse
    | ControlRequest
    | ControlCancelRequest
    | CommandLifecycle
    | RateLimitEvent
    | KeepAlive
    | ConversationReset
    | System
    | TranscriptMirror
)

CliMessage = KnownMessage | Unknown | Garbage

SYSTEM_KINDS: dict[str, type[System]] = {
    "init": SystemInit,
    "status": SystemStatus,
    "api_retry": ApiRetry,
    "model_fallback": ModelFallback,
    "compact_boundary": CompactBoundary,
    "task_started": TaskStarted,
    "task_progress": TaskProgress,
    "task_updated": TaskUpdated,
    "task_notification": TaskNotification,
}


class ContentBlock(Struct):
    """One block of a message's content; the fields that belong to `type` are set."""

    type: str
    text: str = ""
    thinking: str = ""
    id: str = ""
    name: str = ""
    input: Raw | UnsetType = UNSET
    tool_use_id: str = ""
    content: Raw | UnsetType = UNSET
    is_error: bool | None = None


JsonObject = dict[str, Any]
