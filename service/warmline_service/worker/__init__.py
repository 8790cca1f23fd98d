"""One CLI process from spawn to reap: launch, framing, control protocol, messages, stop ladder."""

from warmline_service.worker._argv import check_model
from warmline_service.worker._binary import find_cli
from warmline_service.worker._control import ControlRefused
from warmline_service.worker._decode import decode, decode_blocks, repair
from warmline_service.worker._exit import Exit, Sink
from warmline_service.worker._guard import find_guard
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
    ContentBlockDelta,
    ContentBlockStart,
    ContentBlockStop,
    ConversationReset,
    Delta,
    Garbage,
    KeepAlive,
    MessageDelta,
    MessageStart,
    MessageStop,
    ModelFallback,
    ModelUsage,
    RateLimitEvent,
    Result,
    StreamEvent,
    System,
    SystemInit,
    SystemStatus,
    Unknown,
    Usage,
    User,
)
from warmline_service.worker._probe import probe, read_version
from warmline_service.worker._process import CliProcess
from warmline_service.worker._slot import Endpoint, OpenEndpoint, Slot
from warmline_service.worker._slots import Slots, SlotsInUse
from warmline_service.worker._state import LEGAL_MOVES, IllegalMove, Life, ProcessState

__all__ = [
    "LEGAL_MOVES",
    "ApiRetry",
    "Assistant",
    "Binding",
    "Capabilities",
    "CliMessage",
    "CliProcess",
    "CommandLifecycle",
    "CompactBoundary",
    "ContentBlock",
    "ContentBlockDelta",
    "ContentBlockStart",
    "ContentBlockStop",
    "ControlRefused",
    "ConversationReset",
    "Delta",
    "Endpoint",
    "Exit",
    "Garbage",
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
    "ProcessState",
    "RateLimitEvent",
    "Result",
    "Sink",
    "Site",
    "Slot",
    "Slots",
    "SlotsInUse",
    "SpawnKey",
    "StreamEvent",
    "System",
    "SystemInit",
    "SystemPrompt",
    "SystemStatus",
    "Unknown",
    "Usage",
    "User",
    "check_model",
    "decode",
    "decode_blocks",
    "find_cli",
    "find_guard",
    "probe",
    "read_version",
    "repair",
]
