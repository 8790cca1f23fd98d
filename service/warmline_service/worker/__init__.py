"""One CLI process from spawn to reap: launch, framing, control protocol, messages, stop ladder."""

from warmline_service.worker._argv import check_model
from warmline_service.worker._binary import find_cli
from warmline_service.worker._blocks import Content
from warmline_service.worker._capture import Capture
from warmline_service.worker._child import Child
from warmline_service.worker._control import ControlRefused
from warmline_service.worker._decode import decode, decode_blocks, repair
from warmline_service.worker._equipment import Debug, Plugin, PluginFile, SettingSource
from warmline_service.worker._exit import Exit, Sink
from warmline_service.worker._guard import find_guard
from warmline_service.worker._history import History, Told, Unfit, going_on, history, rehydrate
from warmline_service.worker._import import imported
from warmline_service.worker._inject import inject
from warmline_service.worker._key import (
    Binding,
    Capabilities,
    ModelInfo,
    SpawnKey,
    SystemPrompt,
)
from warmline_service.worker._launch import Launcher, Site
from warmline_service.worker._messages import (
    ApiRetry,
    Assistant,
    CliMessage,
    CommandLifecycle,
    CompactBoundary,
    ContentBlock,
    ControlCancelRequest,
    ControlRequest,
    ConversationReset,
    Garbage,
    KeepAlive,
    ModelFallback,
    ModelUsage,
    PluginError,
    RateLimitEvent,
    Result,
    StreamEvent,
    System,
    SystemInit,
    SystemStatus,
    Task,
    TaskNotification,
    TaskProgress,
    TaskStarted,
    TaskUpdated,
    TranscriptMirror,
    Unknown,
    User,
)
from warmline_service.worker._options import Agent, Command, Options, PermissionMode, Servers
from warmline_service.worker._pending import Pending, unanswered
from warmline_service.worker._probe import probe, read_version
from warmline_service.worker._process import CliProcess
from warmline_service.worker._salvage import Salvage
from warmline_service.worker._slot import Endpoint, OpenEndpoint, OpenWay, Slot
from warmline_service.worker._slots import Slots, SlotsInUse, hand_over
from warmline_service.worker._state import LEGAL_MOVES, IllegalMove, Life, ProcessState
from warmline_service.worker._stop import stop_by_ladder
from warmline_service.worker._stream import (
    ContentBlockDelta,
    ContentBlockStart,
    ContentBlockStop,
    Delta,
    MessageDelta,
    MessageStart,
    MessageStop,
    Usage,
)
from warmline_service.worker._transcript import (
    FORGOTTEN,
    Transcript,
    entries_before,
    lasting,
    transcript,
)
from warmline_service.worker._usage import Stored, stored_below

__all__ = [
    "FORGOTTEN",
    "LEGAL_MOVES",
    "Agent",
    "ApiRetry",
    "Assistant",
    "Binding",
    "Capabilities",
    "Capture",
    "Child",
    "CliMessage",
    "CliProcess",
    "Command",
    "CommandLifecycle",
    "CompactBoundary",
    "Content",
    "ContentBlock",
    "ContentBlockDelta",
    "ContentBlockStart",
    "ContentBlockStop",
    "ControlCancelRequest",
    "ControlRefused",
    "ControlRequest",
    "ConversationReset",
    "Debug",
    "Delta",
    "Endpoint",
    "Exit",
    "Garbage",
    "History",
    "IllegalMove",
    "KeepAlive",
    "Launcher",
    "Life",
    "MessageDelta",
    "MessageStart",
    "MessageStop",
    "ModelFallback",
    "ModelInfo",
    "ModelUsage",
    "OpenEndpoint",
    "OpenWay",
    "Options",
    "Pending",
    "PermissionMode",
    "Plugin",
    "PluginError",
    "PluginFile",
    "ProcessState",
    "RateLimitEvent",
    "Result",
    "Salvage",
    "Servers",
    "SettingSource",
    "Sink",
    "Site",
    "Slot",
    "Slots",
    "SlotsInUse",
    "SpawnKey",
    "Stored",
    "StreamEvent",
    "System",
    "SystemInit",
    "SystemPrompt",
    "SystemStatus",
    "Task",
    "TaskNotification",
    "TaskProgress",
    "TaskStarted",
    "TaskUpdated",
    "Told",
    "Transcript",
    "TranscriptMirror",
    "Unfit",
    "Unknown",
    "Usage",
    "User",
    "check_model",
    "decode",
    "decode_blocks",
    "entries_before",
    "find_cli",
    "find_guard",
    "going_on",
    "hand_over",
    "history",
    "imported",
    "inject",
    "lasting",
    "probe",
    "read_version",
    "rehydrate",
    "repair",
    "stop_by_ladder",
    "stored_below",
    "transcript",
    "unanswered",
]
